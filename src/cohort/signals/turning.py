"""Where a trace turns safe or unsafe, sentence by sentence. Source: arXiv:2509.24393."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

_END = re.compile(r"[.!?]\s+|\n\s*")


def sentences(text: str) -> list[tuple[int, int]]:
    """Characters [start, end) of the sentences of a text, with the white space behind them; of an empty text none."""
    ends = [match.end() for match in _END.finditer(text)]
    return [(a, b) for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if text[a:b].strip()]


def first_run(holds: Sequence[bool], window: int) -> int:
    """The first place from which on it holds at `window` places in a row, the last ones of which may lie behind the end; -1 if
    there is none."""
    return next((i for i in range(len(holds)) if all(holds[i : i + window])), -1)


def turning_points(ratios: Sequence[float], *, mu: float, eta: float, window: int) -> tuple[int, int]:
    """(safety trigger, compliance cue): the first place from which on the share of safe continuations is mu or more, eta or
    less, at `window` places; -1 where there is none."""
    return first_run([each >= mu for each in ratios], window), first_run([each <= eta for each in ratios], window)


def sentence_of(starts: Sequence[int], place: int) -> int:
    """The number of the sentence that a place stands in, of sentences that begin at `starts`; 0 before the first."""
    return max(0, bisect_right(starts, place) - 1)


def first_safe(safe: Sequence[float], most: int) -> int:
    """The first of the rounds 1 .. `most` after which a trace was safe; -1 if there is none."""
    return next((i for i, each in enumerate(safe[:most], 1) if each), -1)


def tokens_before(place: int, length: int, text_of: Callable[[int], str]) -> int:
    """How many of `length` tokens end at or before a character of their text.

    Args:
        text_of: count -> the text of that many first tokens.
    """
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(text_of(middle)) <= place else (low, middle - 1)
    return low
