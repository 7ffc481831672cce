"""TEA and Prefix-TEA: What should post-training optimize? A test-time scaling law perspective. arXiv:2605.10716.

Confidence: reconstructed. Known: the Gaussian law of the upper tail, TEA as its plug-in estimator, Prefix-TEA as its
version without the first terms of the bias in 1/m. Inferred: the weight below (derived from the law), the empirical
threshold, c, the prefix weights, the centring, alpha.

Answers will be the best of N samples, but training draws only m << N. So the best of N is extrapolated from the upper
tail, the rewards at or above their (1 - alpha)-quantile q, with mean mu and standard deviation sigma:

    E[best of N] = mu + c sigma,   c = (E[max of N normals] - lam) / delta        lam, delta: mean and std of a normal
    a_i = (1/alpha) [r_i >= q] ((r_i - q) + c ((r_i - mu)^2 - (q - mu)^2) / (2 sigma))             given its upper tail
    A_i = a_i - mean_g a

The tail of a group are its ceil(alpha m) best rollouts, and 1/alpha their inverse share. Rollouts at q or below have
a = 0, so alpha m should be 2 at least, and rewards should be graded: with 0 and 1, a prompt with more than alpha m
right rollouts is left alone. `prefix_sizes` (m, s_2, ..), as (16, 8), averages over the first s_j rollouts:

    a_i = sum_j w_j (m / s_j) TEA of the first s_j rollouts,   sum_j w_j = 1,   sum_j w_j s_j^-l = 0 for l = 1 .. p - 1

Defaults: N 64 is of the order of the paper's experiments (with m = 8 or 16); alpha 0.5 is the specification's.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.errors import UsageError
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_order, group_size, group_sum
from cohort.reductions.normal import expected_max, tail_moments
from cohort.types import Batch, Groups
from cohort.types.declare import declare


def tail_constant(n: int, alpha: float) -> float:
    """c: how many standard deviations of the tail the best of n lies above the tail's mean."""
    mean, std = tail_moments(alpha)
    return (expected_max(n) - mean) / std


def prefix_weights(sizes: tuple[int, ...]) -> list[float]:
    """w with sum_j w_j = 1 and sum_j w_j s_j^-l = 0 for l = 1 .. p - 1."""
    powers = torch.tensor(sizes, dtype=torch.float64)[None, :] ** -torch.arange(len(sizes))[:, None].double()
    target = torch.zeros(len(sizes), dtype=torch.float64)
    target[0] = 1.0
    return [float(w) for w in torch.linalg.solve(powers, target)]


def tail_weights(rewards: Tensor, groups: Groups, *, alpha: float, c: float) -> Tensor:
    """[N] a_i of the upper tail of each group, not centred."""
    size = group_size(groups, rewards.dtype)
    count = (alpha * size - 1e-9).ceil().clamp(min=1)
    order, rank, start = group_order(rewards, groups)
    q = rewards[order][start + (size - count).to(torch.int64)]
    tail = (rank >= (size - count)[groups.index]).to(rewards.dtype)
    mean = group_sum(tail * rewards, groups) / count
    std = (group_sum(tail * (rewards - mean[groups.index]) ** 2, groups) / count).sqrt()
    slope = torch.where(std > 1e-8, c / (2 * std.clamp(min=1e-8)), torch.zeros_like(std))
    q, mean, slope, scale = (x[groups.index] for x in (q, mean, slope, size / count))
    weight = scale * ((rewards - q) + slope * ((rewards - mean) ** 2 - (q - mean) ** 2))
    return torch.where(rewards > q, weight, torch.zeros_like(weight))


def raw_advantages(batch: Batch, *, alpha: float, c: float, prefix_sizes: tuple[int, ...] | None) -> Tensor:
    """[N] a_i of TEA, or of Prefix-TEA if there are sizes.

    Raises:
        UsageError: a group is not of the size that the prefixes are made for.
    """
    rewards, groups = batch.rewards, batch.groups
    if not prefix_sizes:
        return tail_weights(rewards, groups, alpha=alpha, c=c)
    size = groups.size
    if bool((size != prefix_sizes[0]).any()):
        odd = int(size[size != prefix_sizes[0]][0])
        raise UsageError(
            f"tea: a group has {odd} rollouts, but prefix_sizes={prefix_sizes}: it must begin with group_size"
        )
    _, place, _ = group_order(torch.zeros_like(groups.index), groups)
    total = torch.zeros_like(rewards)
    for weight, prefix in zip(prefix_weights(prefix_sizes), prefix_sizes, strict=True):
        rows = place < prefix
        part = tail_weights(rewards[rows], Groups(groups.index[rows], groups.labels), alpha=alpha, c=c)
        total[rows] += weight * (prefix_sizes[0] / prefix) * part
    return total


@declare(group_size=2)
def tail_extrapolated(
    batch: Batch,
    *,
    alpha: float = 0.5,
    target_n: int = 64,
    prefix_sizes: tuple[int, ...] | None = None,
    center: str = "group-mean",
) -> Tensor:
    """A_i = a_i - mean_g a: [N]. Source: arXiv:2605.10716."""
    raw = raw_advantages(batch, alpha=alpha, c=tail_constant(target_n, alpha), prefix_sizes=prefix_sizes)
    return raw - group_mean(raw, batch.groups)[batch.groups.index] if center == "group-mean" else raw


@recipe(
    title="What should post-training optimize? A test-time scaling law perspective",
    paper="arXiv:2605.10716",
    idea="the best of N samples, extrapolated from the upper tail of a few rollouts",
    confidence="reconstructed: gradient weight, threshold, constant, prefix weights, centring, alpha",
)
def tea(
    *,
    alpha: Annotated[float, "(0, 1]"] = 0.5,
    target_n: Annotated[int, "[1, inf)"] = 64,
    prefix_sizes: tuple[int, ...] | None = None,
    center: Annotated[str, ("group-mean", "none")] = "group-mean",
) -> Method:
    sizes = tuple(prefix_sizes) if prefix_sizes else None
    if sizes and (min(sizes) < 1 or list(sizes) != sorted(set(sizes), reverse=True)):
        raise MethodError(f"'tea': prefix_sizes={sizes!r} must fall, as in (16, 8), and begin with group_size")
    return Method(advantage=use(tail_extrapolated, alpha=alpha, target_n=target_n, prefix_sizes=sizes, center=center))
