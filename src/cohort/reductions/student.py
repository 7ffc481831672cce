"""Student's t distribution: what a mean of few numbers may differ from the true one by."""

from __future__ import annotations

import math
from functools import cache


def t_within(t: float, df: int) -> float:
    """P(|T| <= t) of t >= 0 with df = 1, 2, ... degrees of freedom. Source: Abramowitz and Stegun 26.7.3, 26.7.4."""
    angle = math.atan(t / math.sqrt(df))
    term, total = (math.cos(angle), math.cos(angle)) if df % 2 else (1.0, 1.0)
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    if df % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if df > 1 else 0.0))


@cache
def t_quantile(probability: float, df: int) -> float:
    """The number that T stays below with this probability, in [0.5, 1), for df degrees of freedom."""
    low, high = 0.0, 1.0
    while t_within(high, df) < 2 * probability - 1:
        low, high = high, 2 * high
    # Halved until nothing lies between.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_within(middle, df) < 2 * probability - 1 else (low, middle)
    return high
