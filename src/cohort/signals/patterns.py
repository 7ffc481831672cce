"""Regular expressions with a time limit.

A pattern such as `(a|aa)+$` takes time that doubles with every character of a text that all but matches. The library
`regex` stops in the middle of a match; `re` of Python cannot.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import regex

from cohort.errors import UsageError, shown

# Seconds of processor time for one text, for all texts of a batch, and what a text has at least when those are spent.
TEXT, BATCH, LEAST = 0.25, 5.0, 0.005


class Budget:
    """What the texts of a batch have left of their time."""

    def __init__(self) -> None:
        self.left = BATCH

    def match(self, pattern: Any, text: str, *, whole: bool = False) -> bool:
        """A compiled pattern matches the text, somewhere or as a whole.

        Raises:
            TimeoutError: the time is over.
        """
        begin = time.process_time()
        try:
            ask = pattern.fullmatch if whole else pattern.search
            return ask(text, timeout=max(LEAST, min(TEXT, self.left))) is not None
        finally:
            self.left -= time.process_time() - begin


def compiled(pattern: Any, where: str) -> Any:
    """A pattern of the library `regex`; `.` matches line breaks too.

    Args:
        where: what to call it in messages.

    Raises:
        UsageError: it is no regular expression.
    """
    if not isinstance(pattern, str):
        raise UsageError(f"{where}: a regular expression was expected, got {shown(pattern)}")
    try:
        return regex.compile(pattern, regex.DOTALL)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise UsageError(f"{where}: no regular expression: {error}") from error


def matches(pairs: Iterable[tuple[Any, str]], *, whole: bool = False) -> tuple[list[bool], list[int]]:
    """Which texts match their patterns, and the places of those given up for their time, which do not.

    The whole batch takes at most BATCH seconds, and LEAST a text beyond.

    Args:
        pairs: compiled patterns and texts.
        whole: a text matches as a whole, not just somewhere in it.
    """
    found: list[bool] = []
    late: list[int] = []
    budget = Budget()
    for place, (pattern, text) in enumerate(pairs):
        try:
            found.append(budget.match(pattern, text, whole=whole))
        except TimeoutError:
            found.append(False)
            late.append(place)
    return found, late
