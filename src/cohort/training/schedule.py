"""Learning rate over a run."""

from __future__ import annotations

import math


def factor(step: int, steps: int, *, warmup: int = 0, schedule: str = "constant", floor: float = 0.0) -> float:
    """Share of the learning rate at a step (1 .. steps): a linear rise over `warmup` steps, then constant or cosine.

    The cosine falls to `floor` at the last step.
    """
    if step <= warmup:
        return step / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
