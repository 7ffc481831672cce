"""Reductions over groups, rollouts and tokens, without a reshape and without a Python loop.

`x` is [N] or [N, ...] over rollouts, `groups` says which group each belongs to; group values are [P] or [P, ...].
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.types import Batch, Groups


def by_prompt(batch: Batch) -> Groups:
    """The rollouts by the row of the data set that they are of, on the CPU, for what is kept of prompts; `labels` are the rows.

    Agents of an episode are groups of their own, and of one prompt.
    """
    rows, index = torch.unique(batch["row"].cpu(), return_inverse=True)
    return Groups(index, rows)


def group_sum(x: Tensor, groups: Groups) -> Tensor:
    """[P, ...] sum over the rollouts of each group."""
    out = torch.zeros((groups.count, *x.shape[1:]), dtype=x.dtype, device=x.device)
    return out.index_add(0, groups.index, x)


def group_size(groups: Groups, dtype: torch.dtype) -> Tensor:
    """[P] number of rollouts."""
    return groups.size.to(dtype)


def group_rows(groups: Groups, least: int) -> Tensor:
    """Rows [n] int64 of the groups with at least that many rollouts."""
    large = groups.size >= least
    return large[groups.index].nonzero()[:, 0]


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
    size = groups.size
    start = size.cumsum(0) - size
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=x.device) - start[groups.index[order]]
    return order, rank, start


def group_table(groups: Groups) -> tuple[Tensor, Tensor]:
    """Each group's rollouts as a row, for what compares every pair within a group.

    Returns:
        rows [P, G] int64: the group's rollouts in the order of the batch, G of the largest group, then any row;
        there [P, G] bool: which entries are rollouts of the group.
    """
    order, _, start = group_order(torch.zeros_like(groups.index), groups)
    size = groups.size
    place = torch.arange(groups.largest, device=order.device)
    there = place < size[:, None]
    return order[torch.where(there, start[:, None] + place, start[:, None])], there


def group_parents(labels: Tensor, groups: Groups) -> Groups:
    """The groups themselves in groups (domains, tasks): `index` [P] over groups instead of rollouts.

    Args:
        labels: [N] int64, equal for all rollouts of a group.
    """
    names, place = torch.unique(labels, return_inverse=True)
    return Groups(torch.zeros_like(groups.labels).scatter(0, groups.index, place), names)


def group_lower_median(x: Tensor, groups: Groups) -> Tensor:
    """[P] element number floor((n - 1) / 2) of the sorted values: the lower of the two middle ones for even n."""
    order, _, start = group_order(x, groups)
    size = groups.size
    return x[order][start + (size - 1) // 2]


def group_quantile(x: Tensor, groups: Groups, level: float) -> Tensor:
    """[P] quantile of each group's values, linearly interpolated between the two nearest."""
    order, _, start = group_order(x, groups)
    last = groups.size - 1
    at = level * last.to(x.dtype)
    below = at.floor().to(torch.int64)
    low, high = x[order][start + below], x[order][start + torch.minimum(below + 1, last)]
    # In this form exactly the value where both are equal.
    return low + (at - below) * (high - low)


def group_bundles(groups: Groups, count: int) -> tuple[Tensor, Groups, Groups]:
    """Bundles of `count` groups in order of first appearance, the last maybe smaller, and the exams in each.

    Exam j of a bundle is the j-th rollout of each of its groups, as many exams as its smallest group has rollouts.

    Returns:
        rows [n]: the rollouts that are in an exam; the exam of each of these; the bundle of each exam.
    """
    index = groups.index
    bundle = index // count
    size = torch.bincount(index, minlength=groups.count)
    least = size.new_zeros(-(-groups.count // count))
    least = least.scatter_reduce(0, bundle, size[index], "amin", include_self=False)
    _, place, _ = group_order(torch.zeros_like(index), groups)
    rows = (place < least[bundle]).nonzero()[:, 0]
    width = index.numel() + 1
    labels, exam = torch.unique((bundle * width + place)[rows], return_inverse=True)
    return (
        rows,
        type(groups)(exam, labels),
        type(groups)(labels // width, torch.arange(len(least), device=index.device)),
    )


def token_sum(x: Tensor, mask: Tensor) -> Tensor:
    """[N] sum over the tokens with mask 1; x is [N, T]."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device)).sum(1)


def token_sum_of_others(x: Tensor, mask: Tensor) -> Tensor:
    """[N, T] sum over the other tokens with mask 1 of the rollout.

    Summed from both sides: the total minus a huge term would leave nothing but rounding.
    """
    x = torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))
    before = torch.nn.functional.pad(x, [1, 0])[:, :-1].cumsum(1)
    after = torch.nn.functional.pad(x.flip(1), [1, 0])[:, :-1].cumsum(1).flip(1)
    return before + after


def token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """[N] mean over the tokens with mask 1; 0 for a rollout without tokens."""
    return token_sum(x, mask) / mask.sum(1).clamp(min=1).to(x.dtype)


def token_quantile(x: Tensor, mask: Tensor, q: float) -> Tensor:
    """[N] quantile of the tokens with mask 1, interpolated linearly between neighbours; 0 for a rollout without tokens."""
    ordered = torch.where(mask, x, torch.full_like(x, torch.inf)).sort(1).values
    count = mask.sum(1, keepdim=True)
    place = q * (count - 1).clamp(min=0).to(x.dtype)
    lower, upper = (ordered.gather(1, edge.to(torch.int64)) for edge in (place.floor(), place.ceil()))
    value = lower + (place - place.floor()) * (upper - lower)
    return torch.where(count > 0, value, torch.zeros_like(value))[:, 0]


def top_tokens(x: Tensor, mask: Tensor, share: float) -> Tensor:
    """[N, T] bool: the max(1, ceil(share n)) largest values of the n tokens with mask 1 of each rollout; of equals the
    earlier."""
    if not mask.numel():
        return mask
    count = mask.sum(1, keepdim=True)
    # A product that is whole but for rounding stays whole.
    wanted = (share * count.double() - 1e-9).ceil().clamp(min=1).to(torch.int64)
    inside = torch.where(mask, x, torch.full_like(x, -torch.inf))
    least = inside.sort(1, descending=True).values.gather(1, wanted - 1)
    above, level = mask & (inside > least), mask & (inside == least)
    return above | (level & (level.cumsum(1) <= wanted - above.sum(1, keepdim=True)))


def batch_std(x: Tensor, ddof: int = 0) -> Tensor:
    """Scalar standard deviation over all entries; 0 if they are equal or fewer than ddof + 1."""
    if x.numel() <= ddof or bool(x.max() == x.min()):
        return torch.zeros((), dtype=x.dtype, device=x.device)
    return x.std(correction=ddof)


def leave_one_out_mean(x: Tensor, groups: Groups) -> Tensor:
    """[N] mean of the other rollouts of the group; exactly the common value where all are equal.

    Raises:
        ValueError: a group of one has no other rollout.
    """
    size = group_size(groups, x.dtype)
    if bool((size < 2).any()):
        label = int(groups.labels[size < 2][0])
        raise ValueError(f"group {label} has one rollout, but a baseline from the others needs two: raise group_size")
    mean = (group_sum(x, groups)[groups.index] - x) / (size[groups.index] - 1)
    return torch.where(group_flat(x, groups)[groups.index], x, mean)
