"""Citations of numbered sources in a text, as [1], [2, 3] or [4-6], and the quotations that they stand behind."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cohort.signals.wording import normal_words

_CITED = re.compile(r"\[(\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*)\]")
_QUOTED = re.compile(r"[\"“]([^\"“”]{1,2000})[\"”][\s.,;:]{0,3}((?:\[[\d\s,;–-]{1,100}\]\s?)+)")
# A range names no more sources than these.
_MOST = 100


def _numbers(inside: str) -> list[int]:
    """What stands between the brackets: numbers, and ranges of them."""
    out: list[int] = []
    for part in re.split(r"[,;]", inside):
        ends = [int(end) for end in re.findall(r"\d+", part)]
        out += range(ends[0], min(ends[-1], ends[0] + _MOST) + 1) if ends else ()
    return out


def cited(text: str) -> list[int]:
    """The numbers of the sources that a text cites, in its order, as often as it does."""
    return [number for inside in _CITED.findall(text) for number in _numbers(inside)]


def quotations(text: str) -> list[tuple[str, list[int]]]:
    """What the text puts between double quotation marks right before a citation, and the sources cited there."""
    return [(said, cited(behind)) for said, behind in _QUOTED.findall(text)]


def stands_in(quotation: str, source: str) -> bool:
    """The quotation's words stand in the source in one piece, up to case, articles and punctuation; parts of "a ... b" each."""
    words = normal_words(source)
    parts = [part for part in re.split(r"\.\.\.|…", quotation) if part.strip()]
    return bool(parts) and all(_holds(words, normal_words(part)) for part in parts)


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    count = len(part)
    return any(tuple(words[i : i + count]) == tuple(part) for i in range(len(words) - count + 1))


def quoted_share(text: str, sources: Sequence[str]) -> float:
    """Share of the text's quotations that stand in a source cited behind them; 0 without any. Sources are counted from 1."""
    found = quotations(text)
    right = sum(
        any(0 < number <= len(sources) and stands_in(said, sources[number - 1]) for number in numbers)
        for said, numbers in found
    )
    return right / len(found) if found else 0.0


def known_share(text: str, sources: int) -> float:
    """Share of the text's citations that are of one of so many sources; 0 without any."""
    found = cited(text)
    return sum(0 < number <= sources for number in found) / len(found) if found else 0.0
