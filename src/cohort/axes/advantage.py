"""Advantage axis: rewards -> advantages. A function takes the batch and returns [N] or [N, T], without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import batch_std, group_flat, group_mean, group_size, group_std, group_sum, token_mean
from cohort.types import Batch, Groups
from cohort.types.declare import declare


def standardise(x: Tensor, groups: Groups, *, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """(x - mean_g) / (std_g + eps) for values [N, ...]; exactly 0 in a group of one or of equal values."""
    mean, std = group_mean(x, groups)[groups.index], group_std(x, groups, ddof)[groups.index]
    flat = group_flat(x, groups)[groups.index]
    return torch.where(flat, torch.zeros_like(x), (x - mean) / (std + eps))


def standardise_batch(x: Tensor, *, eps: float, ddof: int) -> Tensor:
    """(x - mean) / (std + eps) over the values [N] of the batch; exactly 0 where they are equal."""
    std = batch_std(x, ddof)
    return (x - x.mean()) / (std + eps) if bool(std > 0) else torch.zeros_like(x)


@declare(group_size=2)
def zscore(batch: Batch, *, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """A_i = (r_i - mean_g r) / (std_g r + eps), statistics over the group of i.

    Args:
        eps: added to the standard deviation.
        ddof: 0 population, 1 sample standard deviation.

    Returns:
        [N]; 0 in a group of one and in a group of equal rewards.

    Source: arXiv:2402.03300, outcome supervision.
    """
    return standardise(batch.rewards, batch.groups, eps=eps, ddof=ddof)


@declare(group_size=2)
def centred(batch: Batch) -> Tensor:
    """A_i = r_i - mean_g r.

    Returns:
        [N]; exactly 0 in a group of equal rewards.

    Source: arXiv:2503.20783.
    """
    rewards, groups = batch.rewards, batch.groups
    flat = group_flat(rewards, groups)[groups.index]
    return torch.where(flat, torch.zeros_like(rewards), rewards - group_mean(rewards, groups)[groups.index])


@declare(group_size=2)
def leave_one_out(batch: Batch) -> Tensor:
    """A_i = r_i - mean of the rewards of the other rollouts of the group.

    Returns:
        [N]; 0 in a group of equal rewards.

    Raises:
        ValueError: a group of one has no other rollout to compare with.

    Source: arXiv:2402.14740 (estimator of Kool et al. 2019).
    """
    rewards, groups = batch.rewards, batch.groups
    size = group_size(groups, rewards.dtype)
    if bool((size < 2).any()):
        label = int(groups.labels[size < 2][0])
        raise ValueError(f"group {label} has one rollout, but a leave-one-out baseline needs two: raise group_size")
    size = size[groups.index]
    others = (group_sum(rewards, groups)[groups.index] - rewards) / (size - 1)
    flat = group_flat(rewards, groups)[groups.index]
    return torch.where(flat, torch.zeros_like(rewards), rewards - others)


def rollout_means(batch: Batch) -> Tensor:
    """The mean advantage of each rollout's tokens, for losses of whole rollouts: [N].

    Of a rollout without tokens, what the advantage axis gave it; 0 where that gave each token its own.
    """
    mean, outcome = token_mean(batch.advantages, batch.mask), batch.get("outcome_advantage")
    return mean if outcome is None else torch.where(batch.mask.any(1), mean, outcome)
