"""Budget axis: how many rollouts each prompt gets. A function returns counts [M] int64 for the M prompts picked.

One that names `drawn`, the rollouts that each of the M prompts got so far, is asked again after every round of sampling, until
it gives nothing more. It may also name `given` [M], how many each was given, failed ones included, and `total`, how many there
are to give. It may name `pool: Pool`, as a curriculum may, and may return (counts, a mapping for each prompt), which
the requests of that prompt carry as `meta`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

import torch
from torch import Tensor

from cohort.reductions.student import t_quantile


def equal(rows: Tensor, *, group_size: int) -> Tensor:
    """`group_size` rollouts for every prompt."""
    return torch.full_like(rows, group_size)


def single(rows: Tensor) -> Tensor:
    """One rollout for every prompt, whatever the run's group size."""
    return torch.ones_like(rows)


def share_in_rounds(given: Tensor, total: int, *, first: int, rounds: int) -> Tensor | int:
    """What comes next where each of M prompts begins with `first` rollouts and the rest is dealt out in equal rounds.

    Args:
        given: [M] rollouts that each was given so far; total: how many there are to give.

    Returns:
        counts [M] of the beginning, and of the end; how many rollouts the round has to deal in between.
    """
    done, begin = int(given.sum()), min(first, total // max(1, given.numel()))
    if not 0 < done < total:
        return torch.full_like(given, 0 if done else begin)
    start = begin * given.numel()
    ends = [start + (total - start) * k // rounds for k in range(1, rounds + 1)]
    return next(end for end in ends if end > done) - done


def spread_of(rewards: Sequence[float]) -> float:
    """Sample standard deviation; 0 of fewer than two."""
    return stdev(rewards) if len(rewards) > 1 else 0.0


def half_width(n: int, spread: float, alpha: float) -> float:
    """Half the Student-t confidence interval at 1 - alpha of a mean of n >= 2 numbers with this standard deviation."""
    return t_quantile(1 - alpha / 2, n - 1) * spread / math.sqrt(n)


def narrowing_by_one(n: int, spread: float, alpha: float) -> float:
    """What one more number takes off `half_width`, the standard deviation being the same; 0 where n < 2."""
    return half_width(n, spread, alpha) - half_width(n + 1, spread, alpha) if n > 1 and spread else 0.0


def exploration_bonus(n: int, total: int, explore: float) -> float:
    """explore sqrt(log(1 + total) / n)."""
    return explore * math.sqrt(math.log(1 + total) / max(1, n))


def expect_narrowing(
    spreads: Sequence[float], given: Sequence[int], share: int, *, alpha: float, explore: float
) -> list[int]:
    """How many of `share` rollouts each prompt gets, one at a time to the largest `narrowing_by_one` + `exploration_bonus`, the
    first where two are equal. Source: arXiv:2510.06672."""
    counts = list(given)
    gains = [narrowing_by_one(n, spread, alpha) for n, spread in zip(counts, spreads, strict=True)]
    for total in range(sum(counts), sum(counts) + share):
        best = max(range(len(counts)), key=lambda i: (gains[i] + exploration_bonus(counts[i], total, explore), -i))
        counts[best] += 1
        gains[best] = narrowing_by_one(counts[best], spreads[best], alpha)
    return [now - before for now, before in zip(counts, given, strict=True)]


def best_plan(utility: Tensor, total: int, *, low: int = 1) -> list[int]:
    """Budgets of n prompts, in [low, B] each, that sum to `total` and whose utilities have the largest sum (exact).

    Args:
        utility: [n, B + 1] of every prompt and budget 0 .. B.

    Raises:
        ValueError: the total does not fit the bounds.
    """
    count, high = utility.shape[0], utility.shape[1] - 1
    if not count * low <= total <= count * high:
        raise ValueError(f"{total} rollouts for {count} prompts do not fit the bounds {low} and {high}")
    best = utility.new_full((total + 1,), -math.inf, dtype=torch.float64)
    best[0] = 0.0
    chosen = []
    for own in utility.double():
        # [B - low + 1, total + 1]: the prompt gets b, those before it what is left.
        options = torch.full((high - low + 1, total + 1), -math.inf, dtype=torch.float64)
        for b in range(low, min(high, total) + 1):
            options[b - low, b:] = best[: total + 1 - b] + own[b]
        best, taken = options.max(0)
        chosen.append(taken + low)
    plan, left = [], total
    for taken in reversed(chosen):
        plan.append(int(taken[left]))
        left -= plan[-1]
    return plan[::-1]
