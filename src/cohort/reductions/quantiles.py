"""Quantiles of numbers that come step by step, tracked without keeping the numbers."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = tuple(round(0.05 * k, 2) for k in range(1, 20))


def track(quantiles: Tensor | None, values: Tensor, *, lr: float, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """q_l + lr (l - share of the values below q_l) for every level l; the values' own quantiles if there are none yet.

    Args:
        quantiles: [levels] float64 on the CPU, or None.
        values: [n], at least one.
    """
    values, at = values.to("cpu", torch.float64), torch.tensor(levels, dtype=torch.float64)
    if quantiles is None:
        return torch.quantile(values, at)
    return quantiles + lr * (at - (values < quantiles[:, None]).double().mean(1))


def at_level(quantiles: Tensor, level: float, *, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """The tracked quantile of the level nearest to the one asked for: a scalar."""
    return quantiles[min(range(len(levels)), key=lambda k: abs(levels[k] - level))]
