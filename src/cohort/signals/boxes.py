"""Boxes in pictures: rectangles x1, y1, x2, y2 in pixels or shares, as answers write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

Box = tuple[float, float, float, float]
_NUMBER = r"-?\d+(?:\.\d+)?"
_FOUR = re.compile(rf"(?<![\w.])({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})(?![\w.]*\d)")


def read_boxes(text: str) -> list[Box]:
    """Every four numbers between commas, in the order of the text."""
    return [box for found in _FOUR.findall(text) if (box := box_of([float(each) for each in found])) is not None]


def box_of(value: Any) -> Box | None:
    """Four numbers as a box, its corners in order; None of another value."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) for each in value):
        return None
    x1, y1, x2, y2 = map(float, value)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def iou(a: Box, b: Box) -> float:
    """Area that both cover / area that one of them covers; 0 where neither has any."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    whole = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - across * down
    return across * down / whole if whole > 0 else 0.0


def matched(said: Sequence[Box], wanted: Sequence[Box]) -> list[float]:
    """IoU of each pair of a box said and a box wanted: the pair that covers most first, each box once, as detection counts."""
    pairs = sorted(
        ((iou(a, b), i, k) for i, a in enumerate(said) for k, b in enumerate(wanted)),
        key=lambda pair: (-pair[0], pair[1:]),
    )
    mine: set[int] = set()
    theirs: set[int] = set()
    out = []
    for value, i, k in pairs:
        if value > 0 and i not in mine and k not in theirs:
            mine.add(i)
            theirs.add(k)
            out.append(value)
    return out


def mean_iou(said: Sequence[Box], wanted: Sequence[Box]) -> float:
    """Sum of the matched pairs' IoU / the larger number of boxes, so that one too many costs as much as one too few.

    1 if there are none and none is wanted.
    """
    most = max(len(said), len(wanted))
    return math.fsum(matched(said, wanted)) / most if most else 1.0


def box_f1(said: Sequence[Box], wanted: Sequence[Box], at: float) -> float:
    """2 pairs of an IoU of `at` or more / (boxes said + boxes wanted); 1 if there are none and none is wanted."""
    count = len(said) + len(wanted)
    return 2 * sum(value >= at for value in matched(said, wanted)) / count if count else 1.0
