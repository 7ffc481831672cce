"""Non-dominated sorting of candidates by several objectives, group by group."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import group_max
from cohort.types import Groups


def dominates(first: Tensor, second: Tensor) -> Tensor:
    """[...] bool: objectives `first` [..., K] are nowhere below `second` [..., K], and above it somewhere."""
    return (first >= second).all(-1) & (first > second).any(-1)


def pareto_ranks(objectives: Tensor, valid: Tensor, groups: Groups) -> Tensor:
    """[N] int64: 0 for what no valid candidate of the group dominates, 1 once those are taken away, and so on; invalid ones
    share the rank behind the last of their group.

    Args:
        objectives: [N, K], higher is better. Only their order matters.
        valid: [N] bool.
    """
    same = groups.index[:, None] == groups.index
    over = dominates(objectives[:, None], objectives) & same & valid[:, None] & valid
    rank = torch.full_like(groups.index, -1)
    left, number = valid.clone(), 0
    while bool(left.any()):
        front = left & ~(over & left[:, None]).any(0)
        rank = torch.where(front, number, rank)
        left, number = left & ~front, number + 1
    last = group_max(rank.double(), groups).long()[groups.index]
    return torch.where(valid, rank, last + 1)


def pareto_scores(ranks: Tensor, groups: Groups) -> Tensor:
    """[N] float64: 1 - rank / the group's largest rank; 1 where that is 0."""
    most = group_max(ranks.double(), groups)[groups.index]
    return torch.where(most > 0, 1 - ranks / most.clamp(min=1), 1.0)
