"""What is known of normal numbers: their maximum, and their upper tail."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

import torch


@cache
def expected_max(n: int) -> float:
    """The mean of the largest of n standard normal numbers."""
    x = torch.linspace(-12, 12, 9601, dtype=torch.float64)
    log_density = math.log(n) - 0.5 * x**2 - 0.5 * math.log(2 * math.pi) + (n - 1) * torch.special.log_ndtr(x)
    return float(torch.trapezoid(x * log_density.exp(), x))


def tail_moments(alpha: float) -> tuple[float, float]:
    """Mean and standard deviation of a standard normal number that is among the upper share alpha, in (0, 1]."""
    if alpha == 1:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - alpha)
    mean = NormalDist().pdf(z) / alpha
    return mean, math.sqrt(1 + z * mean - mean**2)
