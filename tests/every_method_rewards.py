"""Rewards and judges on the embedded task, for methods that read one by name, as a user's reward file has them."""

import re


def _value(text):
    found = re.findall(r"-?\d+", text)
    return int(found[-1]) if found else None


def formatted(completions, **columns):
    """1 for an answer that is worked out."""
    return [float("=" in text) for text in completions]


def thinking(completions, **columns):
    """The more is worked out, the better, up to three sums."""
    return [min(text.count("="), 3) / 3 for text in completions]


def consistent(completions, **columns):
    """1 for an answer that is worked out; unknown where there is none."""
    return [None if _value(text) is None else float("=" in text) for text in completions]


def rubric(completions, **columns):
    """Half the rubric is that something is worked out, the other that there is an answer."""
    return [0.5 * ("=" in text) + 0.5 * (_value(text) is not None) for text in completions]


def flawed(completions, **columns):
    """1 for a guess."""
    return [float("=" not in text) for text in completions]


def proximity(completions, answer, **columns):
    """How near the result comes to the right one, from 0 to 1."""
    values = [_value(text) for text in completions]
    return [0.0 if v is None else max(0.0, 1 - abs(v - int(a)) / 20) for v, a in zip(values, answer, strict=True)]


def wrong_steps(completions, answer, **columns):
    """Two critiques: the first step is wrong where the result is; the second critique finds nothing."""
    return [[[] if _value(text) == int(a) else [0], []] for text, a in zip(completions, answer, strict=True)]


def satisfied(completions, criteria, answer, **columns):
    """Which of the criteria "right" and "worked out" a completion satisfies."""
    met = [
        {"right": _value(text) == int(a), "worked out": "=" in text}
        for text, a in zip(completions, answer, strict=True)
    ]
    return [[known[name] for name in names] for known, names in zip(met, criteria, strict=True)]
