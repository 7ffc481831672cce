"""DaGRPO: Rectifying Gradient Conflict in Reasoning via Distinctiveness-Aware Group Relative Policy Optimization.

arXiv:2512.06337. Confidence: reconstructed: distance, threshold rule, who of a pair is masked, trigger of the anchor, its
ratio, all values. Known: pairs of low distinctiveness are masked by fine-grained scores; hard prompts get anchors.

A right and a wrong rollout that are nearly the same text push the same tokens both ways. A judge's score s in [0, 1],
the reward `score` of the run, tells them apart; members of an indistinct pair are not trained on:

    (i right, j wrong) is indistinct if s_i - s_j < tau, with its sign
    rule="any": every member of an indistinct pair is masked;  "all": those whose every opposite partner is too close
    loss = mean over the rollouts left of mean_t -min(rho A, clip(rho) A),  A of the whole group before masking

Where a prompt's own rollouts reach an accuracy of at most `max_accuracy`, its solution (column `solution`) takes the
place of the last one: reward 1, no clip, and with anchor_ratio="policy_prob" rho = pi (the expert's own probability
counts as 1) or "self" rho = pi / sg[pi]. It is left out where it exceeds the run's budget. All defaults are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import ratio
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_table
from cohort.signals.components import component
from cohort.types import Batch, Request, Rollout, Segment, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs


def unsolved(rollouts: Sequence[Rollout], *, max_accuracy: float) -> dict[str, bool]:
    """prompt id -> whether its rollouts, anchors left out, reach an accuracy of at most `max_accuracy`."""
    own: dict[str, list[float]] = {}
    for rollout in rollouts:
        if not rollout.fields.get("is_anchor"):
            own.setdefault(rollout.prompt.id, []).append(rollout.accuracy)
    return {key: sum(right) / len(right) <= max_accuracy for key, right in own.items()}


@declare(columns=("solution",), provides=("is_anchor",))
def expert_anchors(
    requests: Sequence[Request], sampler: Sampler, *, solution: str = "solution", max_accuracy: float = 0.0
) -> list[Rollout]:
    """Draw every group; where it stays unsolved, the expert's solution takes the place of its last rollout."""
    rollouts = [rollout.replace(fields={**rollout.fields, "is_anchor": 0.0}) for rollout in sampler.draw(requests)]
    hard = unsolved(rollouts, max_accuracy=max_accuracy)
    last = {rollout.prompt.id: place for place, rollout in enumerate(rollouts) if hard[rollout.prompt.id]}
    written = []
    for place in last.values():
        request = rollouts[place].request
        tokens = sampler.encode_completion(request.prompt, str(request.prompt.row.get(solution)))
        if 0 < len(tokens) < request.max_new_tokens:
            # Written by another, but trained on like the policy's own.
            history = (Segment(tokens),)
            written.append(replace(request, history=history, max_new_tokens=1, seed=request.seed + 1))
    anchors = []
    for drawn in sampler.generate(written):
        # The one token drawn after the solution stays if it is the end.
        ended = drawn if drawn.finished else sampler.cut(drawn, len(drawn.request.prefix))
        anchors.append(ended.replace(fields={**ended.fields, "is_anchor": 1.0}))
    for anchor in sampler.grade(anchors):
        # The judge scores it like any other, but that it is right is taken for granted.
        rollouts[last[anchor.prompt.id]] = anchor.replace(reward=1.0, accuracy=1.0)
    return rollouts


def opposite_pairs(batch: Batch, *, score: str, tau: float, info: StepInfo) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (right, wrong) [K] int64 of all such pairs within a group, and whether each is indistinct [K] bool."""
    rows, there = group_table(batch.groups)
    right = batch["accuracy"][rows] > 0.5
    pairs = (right & there)[:, :, None] & (~right & there)[:, None, :]
    group, first, second = pairs.nonzero(as_tuple=True)
    good, bad, scores = rows[group, first], rows[group, second], component(batch, score, info)
    return good, bad, scores[good] - scores[bad] < tau


@declare(after_advantage=True, components=("score",))
def distinct(batch: Batch, *, score: str = "quality", tau: float = 0.2, rule: str = "any", info: StepInfo) -> Tensor:
    """Keep rollouts in no pair of a right and a wrong one whose scores are closer than tau: [N] bool."""
    right, wrong, close = opposite_pairs(batch, score=score, tau=tau, info=info)
    partners = torch.cat([right, wrong]).bincount(minlength=batch.size)
    too_close = torch.cat([right[close], wrong[close]]).bincount(minlength=batch.size)
    return too_close == 0 if rule == "any" else (too_close < partners) | (partners == 0)


@needs("old_logp", "is_anchor")
def anchored_ratio(batch: Batch, *, anchor_ratio: str = "policy_prob") -> Tensor:
    """exp(logp - old_logp); of an anchor's tokens exp(logp), or exp(logp - sg[logp]): [N, T]."""
    alone = batch.logp.exp() if anchor_ratio == "policy_prob" else ratio.on_policy(batch)
    return torch.where(batch["is_anchor"][:, None] > 0, alone, ratio.token(batch))


@needs("is_anchor")
def anchored_clip(batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A); of an anchor's tokens -rho A: [N, T]. Source: arXiv:2512.06337."""
    return torch.where(batch["is_anchor"][:, None] > 0, -ratio * advantages, clipped(ratio, advantages, low, high))


@recipe(
    title="DaGRPO: Distinctiveness-Aware Group Relative Policy Optimization",
    paper="arXiv:2512.06337",
    idea="leave out right and wrong rollouts that are too alike; solutions as anchors for unsolved prompts",
    confidence="reconstructed: distance, threshold rule, masking, anchors, all values",
)
def dagrpo(
    *,
    tau: Annotated[float, "(-inf, inf)"] = 0.2,
    rule: Annotated[str, ("any", "all")] = "any",
    score: str = "quality",
    anchor_ratio: Annotated[str, ("policy_prob", "self")] = "policy_prob",
    solution: str = "solution",
    max_accuracy: Annotated[float, "[0, 1]"] = 0.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    return Method(
        guidance=use(expert_anchors, solution=solution, max_accuracy=max_accuracy),
        filter=(use(distinct, score=score, tau=tau, rule=rule),),
        ratio=use(anchored_ratio, anchor_ratio=anchor_ratio),
        surrogate=use(anchored_clip, low=clip_low, high=clip_high),
    )
