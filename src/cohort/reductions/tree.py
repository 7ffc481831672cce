"""Values and advantages in a tree of segments, and which of its edges are trained."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import group_mean, group_std
from cohort.types import Groups


def tree_values(parent: Tensor, leaf_reward: Tensor) -> Tensor:
    """[M] V of each node: the mean of its children, the reward of a leaf; parent [M] is -1 at the root."""
    depth, ancestor = torch.zeros_like(parent), parent
    while bool((ancestor >= 0).any()):
        depth, ancestor = depth + (ancestor >= 0).long(), torch.where(ancestor >= 0, parent[ancestor.clamp(min=0)], -1)
    values = leaf_reward.clone()
    for level in range(int(depth.max()), 0, -1):
        here = (depth == level).nonzero()[:, 0]
        above, index = torch.unique(parent[here], return_inverse=True)
        values[above] = group_mean(values[here], Groups(index, above))
    return values


def tree_advantages(parent: Tensor, values: Tensor, *, normalise: bool = False, eps: float = 1e-8) -> Tensor:
    """[M] A = V(node) - V(parent), 0 at the root; divided by the spread of the siblings' values if asked."""
    edge = parent >= 0
    gain = torch.where(edge, values - values[parent.clamp(min=0)], torch.zeros_like(values))
    if normalise:
        above, index = torch.unique(parent, return_inverse=True)
        gain = gain / (group_std(values, Groups(index, above))[index] + eps)
    return gain


def recent_edges(
    question: Tensor, made: Tensor, *, now: int, max_age: int = 8, most: int = 32, rng: torch.Generator
) -> Tensor:
    """Edges used now: of each question at most `most`, drawn at random, among those younger than `max_age` iterations."""
    alive = (now - made < max_age).nonzero()[:, 0]
    if not alive.numel():
        return alive
    alive = alive[torch.randperm(alive.numel(), generator=rng)]
    order = torch.argsort(question[alive], stable=True)
    sorted_, first = question[alive][order], torch.zeros_like(order)
    first[1:] = torch.where(sorted_[1:] != sorted_[:-1], torch.arange(1, len(order)), 0)
    return alive[order][torch.arange(len(order)) - first.cummax(0).values < most]
