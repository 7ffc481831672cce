"""NGRPO: Negative-enhanced Group Relative Policy Optimization. arXiv:2509.18851.

Code nangongrui-ngr/NGRPO. Confidence: exact.

A group that is wrong throughout teaches GRPO nothing. Here `virtual` copies of the best possible reward enter the
statistics of every group, though not the data, so that such a group is pushed away from what it did:

    S_g  = {r_1 .. r_G} and `virtual` times r_max
    A_i  = (r_i - mean S_g) / (std S_g + eps)                          sample standard deviation
    l_it = -min(rho A_i, clip(rho, 1 - clip_low, 1 + clip_high) A_i)   the lower bound acts on A < 0, the upper on A > 0

Groups that are right throughout are dropped. The advantages of a group sum to a number <= 0, a constant push away from
failures, which the tighter clip of negative advantages contains. All wrong, with rewards 0 and one virtual 1:
A = -1 / sqrt(G + 1) for each.

Defaults: r_max 1, one virtual rollout, clip 0.16 below and 0.24 above, eps 1e-6 (official code; G is 8 there).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_min, group_size, group_sum
from cohort.types import Batch


def calibrated(batch: Batch, *, r_max: float = 1.0, virtual: int = 1, eps: float = 1e-6, ddof: int = 1) -> Tensor:
    """A_i = (r_i - mean S_g) / (std S_g + eps), S_g the group's rewards and `virtual` copies of r_max.

    Returns:
        [N]; exactly 0 where all of S_g is equal. A group of one works if `virtual` is at least 1.

    Source: arXiv:2509.18851.
    """
    rewards, groups = batch.rewards, batch.groups
    count = group_size(groups, rewards.dtype) + virtual
    mean = (group_sum(rewards, groups) + virtual * r_max) / count
    square = group_sum((rewards - mean[groups.index]) ** 2, groups) + virtual * (r_max - mean) ** 2
    std = (square / (count - ddof).clamp(min=1)).sqrt()
    flat = group_flat(rewards, groups)
    if virtual:
        flat = flat & (group_min(rewards, groups) == r_max)
    calibrated = (rewards - mean[groups.index]) / (std + eps)[groups.index]
    return torch.where(flat[groups.index], torch.zeros_like(rewards), calibrated)


def not_all_correct(batch: Batch) -> Tensor:
    """Keep a group if any of its rollouts is not correct: [N] bool. Source: arXiv:2509.18851."""
    return (group_min(batch["accuracy"], batch.groups) < 1)[batch.groups.index]


@recipe(
    title="NGRPO: Negative-enhanced Group Relative Policy Optimization",
    paper="arXiv:2509.18851",
    idea="a virtual best rollout in every group's statistics, so that groups of failures teach too",
    confidence="exact",
)
def ngrpo(
    *,
    r_max: Annotated[float, "(-inf, inf)"] = 1.0,
    virtual: Annotated[int, "[0, inf)"] = 1,
    clip_low: Annotated[float, "[0, 1]"] = 0.16,
    clip_high: Annotated[float, "[0, inf)"] = 0.24,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    return Method(
        filter=(use(not_all_correct),),
        advantage=use(calibrated, r_max=r_max, virtual=virtual, eps=adv_eps, ddof=std_ddof),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
    )
