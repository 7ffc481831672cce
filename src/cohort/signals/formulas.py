"""Formulas in completions: what math-verify is given to read, and whether it can read it."""

from __future__ import annotations

import re

from cohort.signals import equality
from cohort.signals.answers import marked, outside_thought
from cohort.signals.numbers import last_formula, plain, tidy

_PROSE = re.compile(r"\$|\\[(\[]|(?<![\\A-Za-z{])[A-Za-z]{3,} ")
# Between boxes that stand close to each other, which may hold the parts of one answer.
_NEXT_BOX = re.compile(r"\}(?:[^\\{}]|\\text\s*\{[^{}]*\}|\\[ ,;()]){0,40}\\boxed\s*\{")
_DELIMITED = re.compile(r"\$|\\[(\[]")
# What math-verify reads by itself, and where, as behind "the answer is", it looks first.
_DIGITS = re.compile(r"-?\d[\d,]*(?:\.\d+)?%?")


def as_formula(text: str) -> str:
    """A text marked as a formula, unless it holds marks itself."""
    text = tidy(text)
    return text if "$" in text or "\\boxed" in text else f"${text}$"


def readings(completion: str) -> tuple[str, ...]:
    """What math-verify is given to read: what is marked, as it is and as a formula, else all but the reasoning.

    Where no formula is marked as one, math-verify would find the last digits of one; then the last formula is given.
    """
    found = marked(completion)
    if found is None:
        text = outside_thought(completion)
        last = None if _DELIMITED.search(text) else last_formula(text)
        if last is None or _DIGITS.fullmatch(last[0]):
            return (tidy(text),)
        run, value = last
        return (f"${run}$",) if value is None else (f"${run}$", f"${plain(value)}$")
    answers = [found] if found else []
    joined = _NEXT_BOX.sub(", ", completion)
    if joined != completion and (whole := marked(joined)) is not None and whole.endswith(f", {found}"):
        answers.append(whole)
    # Words may stand around a formula; a formula alone would be searched for a number in it.
    return tuple(
        reading
        for answer in map(tidy, answers)
        for reading in ([answer] if _PROSE.search(answer) else []) + [f"${answer}$"]
    )


def reads_as_math(text: str) -> bool:
    """True if an answer is found in the text and math-verify can read it, whatever it is."""
    found = readings(text)
    return bool(found) and equality.readable(found)
