"""Rewards of the micro task (tests/micro.py) for methods that read one by name, as a user's reward file has them."""

import random

rng = random.Random(0)


def proximity(completions, answer, **columns):
    """How near the digit that the completion is comes to the right one, from 0 to 1."""
    digits = [int(text) if text in tuple("01234567") else None for text in completions]
    return [0.0 if d is None else 1 - abs(d - int(a)) / 7 for d, a in zip(digits, answer, strict=True)]


def always(completions, **columns):
    """1 for everything: only what a method wants beyond right answers is left to learn."""
    return [1.0] * len(completions)


def coin(completions, **columns):
    """1 for half of everything, whatever it is."""
    return [float(rng.random() < 0.5) for _ in completions]
