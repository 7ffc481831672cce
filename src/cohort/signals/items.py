"""Finding the items that a list names, such as recommended films."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARK = re.compile(r"\s*(?:\d+[.)]\s+|[-*]\s+)")
_YEAR = re.compile(r"\(\s*(\d{4})\s*\)\s*$")
Item = tuple[str, int | None]


def read_item(text: str) -> Item:
    """Title without case, punctuation or list mark, and the year if one ends the text in parentheses."""
    text = _MARK.sub("", text, count=1) if _MARK.match(text) else text
    year = _YEAR.search(text)
    title = re.sub(r"[^\w\s]", " ", _YEAR.sub("", text).casefold())
    return " ".join(title.split()), int(year[1]) if year else None


def same_item(a: Item, b: Item) -> bool:
    """The titles are equal, and the years, where both are known, at most two apart."""
    return a[0] == b[0] != "" and (a[1] is None or b[1] is None or abs(a[1] - b[1]) <= 2)


def hits(text: str, items: Sequence[str], *, lines: int, seen: Sequence[str] = ()) -> list[float]:
    """For each of the first `lines` lines, 1 if it names an item that no line before it named, else 0.

    Args:
        items: "Title" or "Title (year)".
        seen: items that do not count.
    """
    left, known = [read_item(item) for item in items], [read_item(item) for item in seen]
    found = [0.0] * lines
    for place, line in enumerate(text.split("\n")[:lines]):
        item = read_item(line)
        match = next((i for i, each in enumerate(left) if same_item(item, each)), None)
        if match is not None and not any(same_item(item, each) for each in known):
            found[place] = 1.0
            del left[match]
    return found
