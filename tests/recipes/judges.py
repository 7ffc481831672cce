"""Rewards and judges of the micro task (tests/micro.py), for methods that ask one."""

from __future__ import annotations

from typing import Any


def thought(text: str) -> int:
    """Signs before the first digit."""
    return next((i for i, sign in enumerate(text) if sign.isdigit()), len(text))


def formatted(completions: list[str], **_: Any) -> list[float]:
    """1 if there is a digit after at most four signs of thought."""
    return [float(thought(text) < len(text) and thought(text) <= 4) for text in completions]


def thinking(completions: list[str], **_: Any) -> list[float]:
    """More thought is better, up to four signs of it."""
    return [min(thought(text), 4) / 4 for text in completions]


def flawed(completions: list[str], **_: Any) -> list[float]:
    """An answer without a thought before it."""
    return [float(thought(text) == 0) for text in completions]


def wrong_steps(completions: list[str], answer: list[str], **_: Any) -> list[list[list[int]]]:
    """Three critiques: the only step is wrong where its last character is; the last critique finds nothing."""
    found = [[] if text.endswith(right) else [0] for text, right in zip(completions, answer, strict=True)]
    return [[wrong, wrong, []] for wrong in found]


def better(first: list[str], second: list[str], answer: list[str], **_: Any) -> list[int | None]:
    """The one that is right; undecided if both are, or neither."""
    verdicts: list[int | None] = []
    for a, b, right in zip(first, second, answer, strict=True):
        verdicts.append(None if (a == right) == (b == right) else int(b == right))
    return verdicts


def same(first: list[str], second: list[str], **_: Any) -> list[bool]:
    """Answers that are the same in lower case."""
    return [a.lower() == b.lower() for a, b in zip(first, second, strict=True)]


def satisfied(prompts, completions, criteria, answer, **columns):
    """Which of the criteria "right" and "short" an answer satisfies."""
    found = [{"right": text == str(a), "short": len(text) == 1} for text, a in zip(completions, answer, strict=True)]
    return [[known[name] for name in names] for known, names in zip(found, criteria, strict=True)]


def reflects(completions: list[str], **_: Any) -> list[float]:
    """1 for what thought again."""
    return [float("~" in text) for text in completions]


def repairs(completions: list[str], **_: Any) -> list[float]:
    """0 for what a step's first sixteen said, 1 for what comes after: repairs."""
    return [float(len(completions) > 16)] * len(completions)


def consistent(completions: list[str], **_: Any) -> list[float | None]:
    """Whether there is a thought before the answer; unknown where there is no answer."""
    return [None if thought(text) == len(text) else float(thought(text) > 0) for text in completions]


def rubric(completions: list[str], **_: Any) -> list[float]:
    """The share of the rubric that an answer of one character meets."""
    return [1.0 if len(text) == 1 else 0.5 for text in completions]
