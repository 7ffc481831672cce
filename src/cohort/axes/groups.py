"""Reductions over groups, rollouts and tokens, without a reshape and without a Python loop.

`x` is [N] or [N, ...] over rollouts, `groups` says which group each belongs to; group values are [P] or [P, ...].
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.batch import Groups


def group_sum(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] sum over the rollouts of each group."""
    out = torch.zeros((groups.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
    return out.index_add(0, groups.index, x)


def group_size(groups: Groups, dtype: torch.dtype) -> Tensor:
    """[P] number of rollouts."""
    return torch.bincount(groups.index, minlength=groups.count).to(dtype)


def group_mean(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] mean over the rollouts of each group."""
    size = group_size(groups, x.dtype)
    return group_sum(x, groups) / size.reshape(-1, *[1] * (x.ndim - 1))


def _extreme(x: Tensor, groups: Groups, reduce: str) -> Tensor:
    index = groups.index.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)
    out = torch.zeros((groups.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
    return out.scatter_reduce(0, index, x, reduce, include_self=False)


def group_max(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] largest value in each group."""
    return _extreme(x, groups, "amax")


def group_min(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] smallest value in each group."""
    return _extreme(x, groups, "amin")


def group_flat(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] bool: all values of the group are equal.

    Tested as max = min: the mean of equal float32 numbers such as 0.7 is off by rounding, and a rounded standard
    deviation divided by a small eps would make noise look like signal.
    """
    return group_max(x, groups) == group_min(x, groups)


def group_std(x: Tensor, groups: Groups, ddof: int = 0) -> Tensor:
    """[P, ...] standard deviation (divisor n - ddof); 0 for fewer than ddof + 1 rollouts and for equal values."""
    mean = group_mean(x, groups)
    square = group_sum((x - mean[groups.index]) ** 2, groups)
    divisor = (group_size(groups, x.dtype) - ddof).clamp(min=1).reshape(-1, *[1] * (x.ndim - 1))
    std = (square / divisor).sqrt()
    return torch.where(group_flat(x, groups), torch.zeros_like(std), std)


def group_order(x: Tensor, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Sort rollouts by group, then by `x` ascending, ties by position.

    Returns:
        order [N]: row of the k-th entry; rank [N]: 0-based place of each rollout in its group;
        start [P]: where each group begins in `order`.
    """
    by_value = torch.argsort(x, stable=True)
    order = by_value[torch.argsort(groups.index[by_value], stable=True)]
    size = torch.bincount(groups.index, minlength=groups.count)
    start = size.cumsum(0) - size
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=x.device) - start[groups.index[order]]
    return order, rank, start


def group_lower_median(x: Tensor, groups: Groups) -> Tensor:
    """[P] element number floor((n - 1) / 2) of the sorted values: the lower of the two middle ones for even n."""
    order, _, start = group_order(x, groups)
    size = torch.bincount(groups.index, minlength=groups.count)
    return x[order][start + (size - 1) // 2]


def token_sum(x: Tensor, mask: Tensor) -> Tensor:
    """[N] sum over the tokens with mask 1; x is [N, T]."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device)).sum(1)


def token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[N] mean over the tokens with mask 1; 0 for a rollout without tokens."""
    return token_sum(x, mask) / mask.sum(1).clamp(min=1).to(x.dtype)


def batch_std(x: Tensor, ddof: int = 0) -> Tensor:
    """Scalar standard deviation over all entries; 0 if they are equal or fewer than ddof + 1."""
    if x.numel() <= ddof or bool(x.max() == x.min()):
        return torch.zeros((), dtype=x.dtype, device=x.device)
    return x.std(correction=ddof)
