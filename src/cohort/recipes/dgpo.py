"""DGPO: Difficulty-aware Group Policy Optimization (MathForge: Harder Is Better). arXiv:2601.20614.

Code AMAP-ML/MathForge. Confidence: exact.

The update that GRPO makes of a prompt peaks where half of its rollouts are right. Here every prompt with a signal moves
the policy equally far, but for a weight that favours hard ones:

    A_i      = G (r_i - mean_g r) / (sum_j |r_j - mean_g r| + eps)      mean absolute deviation instead of std
    lambda_g = n_v softmax_g(-p_g / temperature)                        p_g: mean accuracy; 1 in place of 0
    A_i     <- lambda_g A_i
    loss     = token mean of the clipped surrogate over the n_v valid groups (std of the rewards > 1e-8)

Other groups are dropped. A valid group without a correct rollout owes its spread to another reward, so it gets the
lowest priority (p_g = 1).

Defaults: temperature 2 and eps 1e-4 (paper, official code).

MathForge's other half, MQR, makes the data harder before training: a language model rewrites every question in three ways
that keep its answer (a story around it; a new abstract term defined and used; a condition turned into a sub-problem), and
the method trains on the originals and the rewrites, four times the rows:

    cohort rewrite MODEL --data train.jsonl --out harder.jsonl && cohort train dgpo --data harder.jsonl
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.axes.advantage import centred
from cohort.axes.credit import weight_groups
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_size, group_std, group_sum
from cohort.types import Batch
from cohort.types.declare import declare


@declare(group_size=2)
def mean_deviation(batch: Batch, *, eps: float = 1e-4) -> Tensor:
    """A_i = G (r_i - mean_g r) / (sum_j |r_j - mean_g r| + eps): [N], 0 in flat groups. Source: arXiv:2601.20614."""
    groups, distance = batch.groups, centred(batch)
    scale = group_size(groups, distance.dtype) / (group_sum(distance.abs(), groups) + eps)
    return scale[groups.index] * distance


def valid_groups(batch: Batch) -> Tensor:
    """[P] bool: the rewards of the group differ."""
    return group_std(batch.rewards, batch.groups) > 1e-8


def question_weights(batch: Batch, *, temperature: float) -> Tensor:
    """[P] lambda_g = n_v softmax(-p_g / temperature) over valid groups, 1 for the others."""
    valid, rate = valid_groups(batch), group_mean(batch["accuracy"], batch.groups)
    rate = torch.where(rate == 0, torch.ones_like(rate), rate)
    # The rates lie in [0, 1], so that subtracting the smallest keeps the exponential from vanishing.
    lowest = torch.where(valid, rate, torch.ones_like(rate)).amin() if rate.numel() else 0.0
    unscaled = torch.where(valid, ((lowest - rate) / temperature).clamp(max=0).exp(), torch.zeros_like(rate))
    weight = valid.sum() * unscaled / unscaled.sum().clamp(min=torch.finfo(rate.dtype).tiny)
    return torch.where(valid, weight, torch.ones_like(weight))


@declare(group_size=2)
def difficulty(batch: Batch, advantages: Tensor, *, temperature: float = 2.0) -> Tensor:
    """lambda_g A_it: [N, T]. Source: arXiv:2601.20614."""
    return weight_groups(batch, advantages, question_weights(batch, temperature=temperature))


def with_signal(batch: Batch) -> Tensor:
    """Keep the groups whose rewards differ by more than rounding: [N] bool."""
    return valid_groups(batch)[batch.groups.index]


@recipe(
    title="Harder Is Better: Boosting Mathematical Reasoning via Difficulty-Aware GRPO",
    paper="arXiv:2601.20614",
    idea="every prompt with a signal counts equally, but hard ones more",
    confidence="exact",
)
def dgpo(*, temperature: Annotated[float, "(0, inf)"] = 2.0, eps_mad: Annotated[float, "(0, inf)"] = 1e-4) -> Method:
    return Method(
        filter=(use(with_signal),),
        advantage=use(mean_deviation, eps=eps_mad),
        credit=(use(difficulty, temperature=temperature),),
        aggregation=use(aggregation.token_mean),
    )
