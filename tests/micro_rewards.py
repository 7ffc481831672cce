"""Rewards of the micro task (tests/micro.py) for methods that read one by name, as a user's reward file has them."""


def proximity(completions, answer, **columns):
    """How near the digit that the completion is comes to the right one, from 0 to 1."""
    digits = [int(text) if text in tuple("01234567") else None for text in completions]
    return [0.0 if d is None else 1 - abs(d - int(a)) / 7 for d, a in zip(digits, answer, strict=True)]
