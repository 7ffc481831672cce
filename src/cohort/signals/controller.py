"""A weight that follows an error: proportional and integral, in the exponent."""

from __future__ import annotations

import math
from typing import NamedTuple


class Gains(NamedTuple):
    """How a controller reacts.

    Attributes:
        kp, ki: to the error, and to its decaying sum.
        decay: of the sum, a step.
        alpha: of the moving average that the error is taken of.
    """

    kp: float = 0.05
    ki: float = 0.01
    decay: float = 0.95
    alpha: float = 0.05


def averaged(before: float | None, value: float, alpha: float) -> float:
    """The moving average with a new value; the value itself where there was none."""
    return value if before is None else (1 - alpha) * before + alpha * value


def controlled(
    weight: float, total: float, error: float, *, gains: Gains, low: float, high: float
) -> tuple[float, float]:
    """(weight, sum of errors): I <- decay I + e, w <- clip(w exp(kp e + ki I), low, high). Source: arXiv:2511.22169."""
    total = gains.decay * total + error
    # Far beyond any bound already.
    change = math.exp(min(50.0, gains.kp * error + gains.ki * total))
    return min(high, max(low, weight * change)), total
