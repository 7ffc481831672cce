"""Advantage axis: rewards -> advantages. A function takes the batch and returns [N] or [N, T], without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import batch_std, group_flat, group_mean, group_size, group_std, group_sum, token_mean
from cohort.types import Batch, Groups, StepInfo
from cohort.types.declare import declare, needs


def standardise(x: Tensor, groups: Groups, *, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """(x - mean_g) / (std_g + eps) for values [N, ...]; exactly 0 in a group of one or of equal values."""
    mean, std = group_mean(x, groups)[groups.index], group_std(x, groups, ddof)[groups.index]
    # Without eps, values that differ too little for their squares are equal, too.
    flat = group_flat(x, groups)[groups.index] | (std + eps == 0)
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


def component_advantages(batch: Batch, *, eps: float, ddof: int, missing: str = "zero") -> Tensor:
    """[N, K] each component standardised in its group."""
    components, groups = batch["reward_components"], batch.groups
    if missing == "zero":
        return standardise(components.nan_to_num(0.0), groups, eps=eps, ddof=ddof)
    out = torch.zeros_like(components)
    for k in range(components.shape[1]):
        here = ~components[:, k].isnan()
        index, labels = torch.unique(groups.index[here], return_inverse=True)[::-1]
        out[here, k] = standardise(components[here, k], Groups(index, labels), eps=eps, ddof=ddof)
    return out


def weighted_sum(advantages: Tensor, weights: tuple[float, ...] | None, info: StepInfo) -> Tensor:
    """[N] sum_k w_k a_ik; the weights of the run's rewards if none are given."""
    weights = weights or info.reward_weights or (1.0,) * advantages.shape[1]
    return advantages @ torch.tensor(weights, dtype=advantages.dtype, device=advantages.device)


@needs("reward_components")
@declare(group_size=2)
def decoupled(
    batch: Batch,
    *,
    weights: tuple[float, ...] | None = None,
    eps: float = 1e-4,
    ddof: int = 1,
    batch_norm: bool = True,
    missing: str = "zero",
    info: StepInfo,
) -> Tensor:
    """A_i = (a_i - mean a) / (std a + eps) over the batch, a_i = sum_k w_k a_ik, a_ik component k standardised in its group.

    Args:
        weights: w_k; None takes those of the run's rewards.
        batch_norm: False gives a_i itself.
        missing: a component that does not apply counts as 0 ("zero"), or in no mean and deviation ("skip").

    Returns:
        [N].

    Source: arXiv:2601.05242.
    """
    total = weighted_sum(component_advantages(batch, eps=eps, ddof=ddof, missing=missing), weights, info)
    return standardise_batch(total, eps=eps, ddof=ddof) if batch_norm else total


def rollout_means(batch: Batch) -> Tensor:
    """The mean advantage of each rollout's tokens, for losses of whole rollouts: [N].

    Of a rollout without tokens, what the advantage axis gave it; 0 where that gave each token its own.
    """
    mean, outcome = token_mean(batch.advantages, batch.mask), batch.get("outcome_advantage")
    return mean if outcome is None else torch.where(batch.mask.any(1), mean, outcome)
