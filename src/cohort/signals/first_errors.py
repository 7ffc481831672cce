"""Verdicts on solutions in steps: the first wrong step, or that there is none."""

from __future__ import annotations

SOUND = -1


def read_step(answer: str | None) -> int | None:
    """The step that a verdict's answer names, -1 for none; None where it is missing or no integer."""
    try:
        return None if answer is None else int(answer)
    except ValueError:
        return None


def is_flawed(answer: str | None) -> bool:
    """A verdict's answer names a wrong step, in range or not; False if it is -1, missing, or no integer.

    Source: arXiv:2510.22543.
    """
    return read_step(answer) not in (None, SOUND)


def step_reward(predicted: int | None, gold: int, steps: int) -> float:
    """Reward in [-1, 1] of a verdict.

    -1 if the verdict is no step (0 .. steps - 1) and not -1, or finds a flaw where there is none, or none where there is
    one; 1 if both say sound; else 1 - |predicted - gold| / steps.

    Args:
        predicted: first wrong step, -1 for none; None if it cannot be read.
        gold: first wrong step in truth, -1 for none.

    Source: arXiv:2510.22543.
    """
    if predicted is None or not SOUND <= predicted < steps or (predicted == SOUND) != (gold == SOUND):
        return -1.0
    return 1.0 if gold == SOUND else 1.0 - abs(predicted - gold) / steps
