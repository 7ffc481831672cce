"""BRPO: Optimizing Anytime Reasoning via Budget Relative Policy Optimization (AnytimeReasoner). arXiv:2505.13438.

Code sail-sg/AnytimeReasoner. Confidence: exact (official code).

A thought is cut at budgets b_1 < ... < b_S and each cut is answered by a few summaries; r_gs is the mean score of the
summaries of trace g at budget s, P_s how much that budget counts (uniform, proportional to b_s, or only the last):

    R_gs  = sum_{j >= s} P_j r_gj                            what thinking between the budgets s-1 and s can still change
    V1_gs = (sum_{j < s} 2^j r_gj / sum_{j < s} 2^j) sum_{j >= s} P_j            the trace's own earlier budgets
    V2_s  = mean_g R_gs
    A_gs  = R_gs - (s V1 + (S - s) V2) / S                   thinking tokens (s from 0)
    A     = x - mean of the trace's summaries of the same cut                    summary tokens
    loss  = sum of the clipped token losses / (N L)

With one summary a budget its baseline is the mean over the traces. A thought is drawn once; cuts that it did not reach share
its end. The text that closes a cut thought is not trained. A rollout's row holds the thought and its summaries, each in the
context of its own cut, and its reward in the log is that of the last summary.

Defaults: budgets None, the quarters of max_new_tokens (2000, 4000, 6000, 8000 in the paper), 4 summaries of at most 128 tokens,
decay 2. The wording of `closing` is ours.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.axes.summaries import CLOSING, budgets_of, of_summaries, summarised
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_size
from cohort.types import Batch, Groups, StepInfo
from cohort.types.declare import declare, hooks, needs

PRIORS = ("uniform", "linear", "base")
MODES = ("brpo", "v2only", "v1only", "none")


def prior_of(name: str, budgets: Tensor) -> Tensor:
    """[S] P_s: how much each budget counts."""
    if name == "uniform":
        return torch.full_like(budgets, 1 / budgets.numel())
    return budgets / budgets.sum() if name == "linear" else (budgets == budgets.max()).to(budgets.dtype)


def thinking_advantages(
    scores: Tensor, prior: Tensor, groups: Groups, *, decay: float = 2.0, mode: str = "brpo"
) -> Tensor:
    """[N, S] A_gs of scores r [N, S] and prior [S]."""
    count = scores.shape[1]
    later = (prior * scores).flip(1).cumsum(1).flip(1)
    weight = decay ** torch.arange(count, dtype=scores.dtype, device=scores.device)
    before = (weight * scores).cumsum(1) - weight * scores
    own = before / (weight.cumsum(0) - weight).clamp(min=1) * prior.flip(0).cumsum(0).flip(0)
    # A trace alone has no others to be compared with.
    several = (group_size(groups, scores.dtype) > 1)[groups.index, None]
    others = torch.where(several, group_mean(later, groups)[groups.index], torch.zeros_like(later))
    share = torch.arange(count, dtype=scores.dtype, device=scores.device) / count
    mixed = share * own + (1 - share) * others
    return later - {"brpo": mixed, "v2only": others, "v1only": own, "none": torch.zeros_like(own)}[mode]


def summary_advantages(scores: Tensor, split: Tensor, groups: Groups, *, single: bool) -> Tensor:
    """[N, K] x - mean of the trace's summaries of the same cut, or, with one a budget, of the traces' at that place.

    Args:
        scores: [N, K] x; split: [N, K] which cut each answers.
    """
    if single:
        return scores - group_mean(scores, groups)[groups.index]
    same = (split[:, :, None] == split[:, None, :]).to(scores.dtype)
    return scores - (same * scores[:, None, :]).sum(2) / same.sum(2)


def last_summary_only(scores: Tensor, groups: Groups) -> Tensor:
    """[N, K] the GRPO baseline: only the summary at the largest budget is trained."""
    gain = scores - group_mean(scores, groups)[groups.index]
    return torch.cat([torch.zeros_like(gain[:, :-1]), gain[:, -1:]], 1)


@needs("summary_scores", "summary_split", "thinking_segment", "summary_index")
@hooks(on_scored=of_summaries)
@declare(group_size=2, provides=("summary_scores", "summary_split"))
def budget_relative(
    batch: Batch,
    *,
    info: StepInfo,
    budgets: tuple[int, ...] | None = None,
    prior: str = "uniform",
    decay: float = 2.0,
    mode: str = "brpo",
) -> Tensor:
    """A_gs at thinking tokens, x - baseline at summary tokens, 0 elsewhere: [N, T]. Source: arXiv:2505.13438.

    Fields: summary_scores, summary_split [N, K]; thinking_segment [N, T], the budgets already passed, -1 outside the
    thought; summary_index [N, T], which summary a token belongs to, -1 outside.
    """
    scores, lengths = batch["summary_scores"].to(batch.dtype), budgets_of(budgets, info)
    count = len(lengths)
    score = scores.unflatten(1, (count, -1)).mean(2)
    weight = prior_of(prior, torch.tensor(lengths, dtype=batch.dtype, device=batch.device))
    thinking = thinking_advantages(score, weight, batch.groups, decay=decay, mode=mode)
    single = scores.shape[1] == count
    summary = summary_advantages(scores, batch["summary_split"], batch.groups, single=single)
    segment, index = batch["thinking_segment"].long(), batch["summary_index"].long()
    zero = torch.zeros(batch.mask.shape, dtype=batch.dtype, device=batch.device)
    out = torch.where(segment >= 0, thinking.gather(1, segment.clamp(min=0)), zero)
    out = torch.where(index >= 0, summary.gather(1, index.clamp(min=0)), out)
    return torch.where(batch.mask, out, zero)


@recipe(
    title="Optimizing Anytime Reasoning via Budget Relative Policy Optimization",
    paper="arXiv:2505.13438",
    idea="rewarded at several thinking budgets, each stretch of thought for what it still changes",
    confidence="exact",
)
def brpo(
    *,
    budgets: tuple[int, ...] | None = None,
    summaries: Annotated[int, "[1, inf)"] = 4,
    summary_tokens: Annotated[int, "[1, inf)"] = 128,
    prior: Annotated[str, PRIORS] = "uniform",
    decay: Annotated[float, "(0, inf)"] = 2.0,
    mode: Annotated[str, MODES] = "brpo",
    max_tokens: Annotated[int | None, "[1, inf)"] = None,
    closing: str = CLOSING,
    end_of_thinking: str = "</think>",
) -> Method:
    if budgets is not None and (not budgets or list(budgets) != sorted(set(budgets)) or min(budgets) < 1):
        raise MethodError(f"'brpo': budgets={budgets!r} must be rising numbers of tokens, such as (2000, 4000)")
    cuts = {"budgets": budgets, "summaries": summaries, "summary_tokens": summary_tokens}
    return Method(
        sampling=use(summarised, **cuts, closing=closing, end_of_thinking=end_of_thinking),
        advantage=use(budget_relative, budgets=budgets, prior=prior, decay=decay, mode=mode),
        aggregation=use(aggregation.constant, max_tokens=max_tokens),
    )
