"""Lists in texts: the items that one names, such as recommended films, and what their order is worth."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cohort.signals.json_text import read_json
from cohort.signals.wording import normal_words

if TYPE_CHECKING:
    from torch import Tensor

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


def rank_rewards(hit: Tensor, *, reward: str) -> Tensor:
    """What each rank earns, from hits [..., K], of their shape. Source: arXiv:2510.20150.

    Args:
        reward: "exp_inf", the hit itself; or "log_decay", the discounted gain of the list from this rank on.
    """
    if reward == "exp_inf":
        return hit
    place = hit.new_ones(hit.shape[-1]).cumsum(0) + 1
    return (hit / place.log2()).flip(-1).cumsum(-1).flip(-1)


def _gain(found: Sequence[float]) -> float:
    """DCG: the sum of hits / log2(rank + 1)."""
    import torch

    return float(rank_rewards(torch.tensor(found, dtype=torch.float64), reward="log_decay")[0]) if found else 0.0


def _ndcg(found: Sequence[float], wanted: int) -> float:
    return _gain(found) / _gain([1.0] * min(len(found), wanted))


def _first(found: Sequence[float], wanted: int) -> float:
    return next((1 / rank for rank, hit in enumerate(found, 1) if hit), 0.0)


# Metric -> its value for the hits of the ranks that count, where `wanted` items are true; all in [0, 1] but dcg.
METRICS: dict[str, Callable[[Sequence[float], int], float]] = {
    "ndcg": _ndcg,
    "dcg": lambda found, wanted: _gain(found),
    "recall": lambda found, wanted: math.fsum(found) / wanted,
    "precision": lambda found, wanted: math.fsum(found) / len(found),
    "mrr": _first,
}


# sets ------------------------------------------------------------------------------------------------------------------

_AROUND = re.compile(r"\\?\{(.*)\\?\}|\[(.*)\]|\((.*)\)", re.DOTALL)


_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def set_of(value: object) -> frozenset[tuple[str, ...]]:
    """The items of a list, or of a text that lists some, each as its normalised words.

    A text is read as a list of JSON, else by its lines where it has several, else by what semicolons or, without any,
    commas part; a number with separators of thousands is one item. Brackets around all of it, marks of a list and an "and"
    before the last item do not count.
    """
    if isinstance(value, str):
        read = read_json(value)
        value = read if isinstance(read, list) else _pieces(value.strip())
    each = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    texts = (_MARK.sub("", str(item), count=1) if _MARK.match(str(item)) else str(item) for item in each)
    return frozenset(words for text in texts if (words := normal_words(text)))


def _pieces(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) > 1:
        return lines
    if _THOUSANDS.fullmatch(text):
        return [text]
    around = _AROUND.fullmatch(text)
    inside = text if around is None else next(part for part in around.groups() if part is not None)
    parts = inside.split(";" if ";" in inside else ",")
    if len(parts) > 1:
        parts[-1] = re.sub(r"^\s*(?:and|or|&)\s+", "", parts[-1])
    return parts
