"""Rubrics: lists of weighted criteria, and which of them an answer satisfies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cohort.errors import UsageError, shown
from cohort.signals.questions import question
from cohort.types import Rollout
from cohort.types.access import Judge, Sampler

CALL = (
    "judge(prompts, completions, criteria, **columns) -> for each completion a list with 1 for every criterion that it "
    "satisfies, else 0"
)
FORM = 'a rubric is a list of {"criterion": text, "weight": number above 0, "factual": true or false}'
ASK = """Question:
{question}

Answer:
{answer}

Does the answer satisfy this criterion: {criterion}
Reply with yes or no."""


class Criterion(NamedTuple):
    """A criterion: what it asks, how much it counts, and whether it is a result (or the soundness of a step)."""

    text: str
    weight: float
    factual: bool


def rubric_of(value: Any, where: str, *, signed: bool = False) -> list[Criterion]:
    """The criteria of a rubric, as it stands in a column.

    Args:
        signed: a weight may be below 0: of what an answer is not to have.

    Raises:
        UsageError: it is none; names the row.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        found = [_criterion(each, signed) for each in value]
        if None not in found:
            return [each for each in found if each is not None]
    form = FORM.replace("above 0", "other than 0, below 0 for what is not to be") if signed else FORM
    raise UsageError(f"{where}: {form}, with at least one; got {shown(value, 120)}")


def _criterion(value: Any, signed: bool) -> Criterion | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("criterion"), str):
        return None
    weight, factual = value.get("weight", 1.0), value.get("factual", False)
    fits = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 < abs(weight) < float("inf")
    fits = fits and (signed or weight > 0)
    return Criterion(value["criterion"], float(weight), factual) if fits and isinstance(factual, bool) else None


def share_met(weights: Sequence[float], met: Sequence[float]) -> float:
    """(sum_{w>0} w g + sum_{w<0} |w| (1 - g)) / sum |w|, in [0, 1]; 0 without weights.

    Args:
        weights: of criteria, below 0 for what an answer is not to have; met: g in {0, 1}, whether each holds.

    Source: arXiv:2605.12474 eq. 1
    """
    whole = sum(map(abs, weights))
    held = sum(w * g if w > 0 else -w * (1 - g) for w, g in zip(weights, met, strict=True))
    return held / whole if whole else 0.0


def rubric_reward(satisfied: Tensor, rubric: Sequence[Criterion]) -> Tensor:
    """[M] 1 if all factual criteria are satisfied, else the satisfied share of the weights; that share where none is factual.

    Args:
        satisfied: [M, K] bool.
    """
    weight = torch.tensor([each.weight for each in rubric], dtype=torch.float64)
    factual = torch.tensor([each.factual for each in rubric])
    share = (satisfied * weight).sum(1) / weight.sum()
    right = satisfied[:, factual].all(1) & factual.any()
    return torch.where(right, torch.ones_like(share), share)


def judged(
    rollouts: Sequence[Rollout], rubrics: Sequence[Sequence[Criterion]], sampler: Sampler, judge: Judge | None
) -> list[Tensor]:
    """[K] bool for each rollout: which criteria of its rubric it satisfies. A verdict that cannot be read counts as no.

    Args:
        judge: a function of the user's; None asks the policy itself, once a criterion.
    """
    if judge is None:
        pairs = [(r, each) for r, rubric in zip(rollouts, rubrics, strict=True) for each in rubric]
        asked = [ASK.format(question=question(r.prompt), answer=r.text, criterion=each.text) for r, each in pairs]
        said = iter(sampler.ask(asked) if asked else [])
        return [torch.tensor([next(said).strip().lower().startswith("yes") for _ in rubric]) for rubric in rubrics]
    texts = {
        "completions": [r.text for r in rollouts],
        "criteria": [[each.text for each in rubric] for rubric in rubrics],
    }
    verdicts = sampler.judge(judge, [r.prompt for r in rollouts], **texts)
    return [_verdict(found, len(rubric)) for found, rubric in zip(verdicts, rubrics, strict=True)]


def _verdict(found: Any, count: int) -> Tensor:
    marks: Iterable[Any] = (
        found if isinstance(found, Sequence) and not isinstance(found, str) and len(found) == count else ()
    )
    return torch.tensor([*(mark in (1, True) for mark in marks)] or [False] * count)


def consensus(panel: Sequence[Sequence[int]]) -> list[int]:
    """[K] 1 where all judges of a panel credit the criterion.

    Args:
        panel: [judges][K] 0 or 1.
    """
    return [int(all(marks)) for marks in zip(*panel, strict=True)]


def exploited(
    weights: Sequence[float], before: Sequence[int], now: Sequence[int], panel: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """(weight that all judges of a panel reject, weight) of what a verifier newly credits of one answer.

    Criteria whose weight is below 0 are left out. Source: arXiv:2605.12474 section 3

    Args:
        weights: [K] of the criteria; before, now: [K] what the verifier credited and credits; panel: [judges][K].
    """
    rejected = whole = 0.0
    for k, weight in enumerate(weights):
        if weight > 0 and now[k] and not before[k]:
            whole += weight
            rejected += weight * (not any(marks[k] for marks in panel))
    return rejected, whole


def internalization_gap(plain: Tensor, behind: Tensor, mask: Tensor) -> Tensor:
    """[M] mean token log-probability behind the plain prompt less that behind the rubric; NaN for an answer without tokens.

    Args:
        plain, behind: [M, T] log-probabilities of answers that were drawn behind the rubric; mask: [M, T].

    Source: arXiv:2605.12474 eq. 5
    """
    there = mask.to(plain.dtype)
    return ((plain - behind) * there).sum(1) / there.sum(1)
