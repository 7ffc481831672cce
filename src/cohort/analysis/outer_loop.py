"""A run as noisy gradient ascent whose steps are those of training: where it settles, by step size and rollouts.

    x <- x - eta (h x + sigma z / sqrt(N)),  z ~ N(0, 1)        loss h x^2 / 2

The variance of x goes to eta sigma^2 / (N h (2 - eta h)). Half the step and twice the rollouts lower that plateau about
equally, and only the rollouts do so without slowing the start. Source: the picture of arXiv:2603.06009; the formulas follow
from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def ascent(
    noise: Sequence[float],
    *,
    start: float,
    curvature: float,
    sigma: float,
    step: float,
    samples: int,
    cut: tuple[int, float] | None = None,
) -> tuple[list[float], list[float]]:
    """x, and its variance over noises, after each step.

    Args:
        noise: z of each step.
        start: x before the first one, which has no variance.
        samples: N of a step.
        cut: (number of the step from which on, counted from 0, its size), to try whether a step was too large.
    """
    x, variance, places, variances = start, 0.0, [], []
    for number, z in enumerate(noise):
        eta = cut[1] if cut is not None and number >= cut[0] else step
        x -= eta * (curvature * x + sigma * z / math.sqrt(samples))
        variance = (1 - eta * curvature) ** 2 * variance + eta**2 * sigma**2 / samples
        places.append(x)
        variances.append(variance)
    return places, variances


def plateau(*, curvature: float, sigma: float, step: float, samples: int) -> tuple[float, float]:
    """(variance, loss) at which the ascent settles; infinite where the step is so large that it does not."""
    room = 2 - step * curvature
    variance = step * sigma**2 / (samples * curvature * room) if room > 0 else math.inf
    return variance, 0.5 * curvature * variance
