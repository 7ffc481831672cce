"""MC-GRPO: Median-Centered Group Relative Policy Optimization for Small-Rollout Reinforcement Learning.

arXiv:2601.22582, code lotusroot-kim/MC-GRPO. Confidence: exact.

With few rollouts the mean is a noisy baseline that flips signs; the median is not. G + 1 rollouts are drawn, and the
one that equals the median (the pivot, lowest index on ties) is left out of the update:

    A_i = (r_i - med) / (MAD + eps),   MAD = lower median of |r_i - med|

`rescale_nonzero` (the GSM8K recipe) multiplies by (G + 1) / (number of non-zero advantages of the group).

Defaults: eps 1e-3 (paper). With 0/1 rewards a strict majority makes MAD 0 and |A| = 1/eps = 1000: the released code
relies on Adam's scale invariance and gradient clipping. Raise eps, or set scale="none", with other optimizers.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_lower_median, group_min, group_size, group_sum
from cohort.types import Batch
from cohort.types.declare import declare


def one_more(rows: Tensor, *, group_size: int) -> Tensor:
    """G + 1 rollouts for every prompt."""
    return torch.full_like(rows, group_size + 1)


@declare(group_size=2)
def median_centred(batch: Batch, *, eps: float = 1e-3, rescale_nonzero: bool = False, scale: str = "mad") -> Tensor:
    """A_i = (r_i - med_g) / (MAD_g + eps): [N]. Source: arXiv:2601.22582."""
    rewards, groups = batch.rewards, batch.groups
    distance = rewards - group_lower_median(rewards, groups)[groups.index]
    if scale == "mad":
        mad = group_lower_median(distance.abs(), groups)[groups.index]
        advantages = distance / (mad + eps)
    else:
        advantages = distance
    if rescale_nonzero:
        nonzero = group_sum((advantages.abs() > 1e-6).to(rewards.dtype), groups)
        advantages = advantages * (group_size(groups, rewards.dtype) / nonzero.clamp(min=1))[groups.index]
    return advantages


@declare(after_advantage=True)
def without_pivot(batch: Batch) -> Tensor:
    """Keep [N]: all but the first rollout of each group whose reward is the median."""
    rewards, groups = batch.rewards, batch.groups
    median = group_lower_median(rewards, groups)[groups.index]
    place = torch.arange(batch.size, device=batch.device)
    candidate = torch.where(rewards == median, place, torch.full_like(place, batch.size))
    return place != group_min(candidate, groups)[groups.index]


@recipe(
    title="MC-GRPO: Median-Centered Group Relative Policy Optimization for Small-Rollout Reinforcement Learning",
    paper="arXiv:2601.22582",
    idea="median baseline from one extra rollout, for small groups",
    confidence="exact",
)
def mc_grpo(
    *,
    eps_mad: Annotated[float, "(0, inf)"] = 1e-3,
    rescale_nonzero: bool = False,
    scale: Annotated[str, ("mad", "none")] = "mad",
) -> Method:
    return Method(
        budget=use(one_more),
        advantage=use(median_centred, eps=eps_mad, rescale_nonzero=rescale_nonzero, scale=scale),
        filter=(use(without_pivot),),
    )
