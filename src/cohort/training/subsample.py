"""Which groups' tokens are recorded, so that recording costs next to nothing: pure functions of what it cost so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cohort.seeds import generator

# Most of a step's time that recording may take.
SHARE = 0.01
# What is aimed at: a step's cost swings around its mean.
AIM = 0.75 * SHARE


def affordable(groups: float, spent: float, elapsed: float, most: int) -> float:
    """How many groups' tokens to record next: what was recorded, scaled by what was allowed over what was spent.

    With a cost of f + c n seconds for n groups this converges from any start to n = (allowed - f) / c, since its slope
    there, f / allowed, is below 1; where texts alone cost more than is allowed, to one group.

    Args:
        groups: number recorded last, at least 1; not whole, so that it can grow from 1.
        spent: seconds that recording took.
        elapsed: seconds of training since the recording before.
        most: groups of a step.
    """
    factor = min(2.0, AIM * elapsed / max(spent, 1e-9))
    return min(float(max(1, most)), max(1.0, groups * factor))


def chosen(signal: Sequence[float], count: int, *, step: int, seed: int) -> list[int]:
    """Groups whose tokens are recorded, `count` of them: by turns the one with the strongest signal and a random one, which
    of the two first by the step's number. A larger count adds groups and takes none away.

    Args:
        signal: of each group, such as its part of the gradient.
    """
    strong = sorted(range(len(signal)), key=lambda group: (-signal[group], group))
    drawn = torch.randperm(len(signal), generator=generator(seed, "record", step)).tolist()
    first, second = (strong, drawn) if step % 2 else (drawn, strong)
    taken: dict[int, None] = {}
    for pair in zip(first, second, strict=True):
        for queue, head in zip((first, second), pair, strict=True):
            taken[next((group for group in queue if group not in taken), head)] = None
    return list(taken)[:count]
