"""Charts by their data: whether what was drawn is what was asked for, and what it is worth.

A chart is a kind ("bar", "line", "scatter", "area", "pie", "heatmap"; None where any will do) and series of points, x and y;
x is a text or a number. A pie's y are shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cohort.errors import UsageError, shown
from cohort.signals.numbers import number
from cohort.signals.wording import normal_words

Point = tuple[str | float, float]
KINDS = ("bar", "line", "scatter", "area", "pie", "heatmap")
FORM = (
    'a chart such as {"kind": "bar", "series": [{"label": "2024", "x": ["a", "b"], "y": [1, 2]}]}, where kind and label may '
    f"be left out; kinds are {', '.join(KINDS)}"
)
# y may be rounded by this share of itself.
ROUNDED = 0.01


class Series(NamedTuple):
    """One series: its name, "" where it has none, and its points."""

    label: str
    points: tuple[Point, ...]


class Chart(NamedTuple):
    """What a chart shows.

    Attributes:
        kind: how it shows it; None where that does not matter.
        readable: of title, names of both axes, a legend where there are several series, and ticks that can be told apart,
            how many it has: 0 to 4.
    """

    kind: str | None
    series: tuple[Series, ...]
    readable: int = 4


def chart_of(value: Any, where: str) -> Chart:
    """The chart that a column holds.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, Mapping) and value.get("kind") in (*KINDS, None) and isinstance(value.get("series"), list):
        found = [_series(each) for each in value["series"]]
        if found and None not in found:
            return Chart(value.get("kind"), tuple(each for each in found if each is not None))
    raise UsageError(f"{where}: expected {FORM}; got {shown(value, 200)}")


def _series(value: Any) -> Series | None:
    if not isinstance(value, Mapping):
        return None
    x, y = value.get("x"), value.get("y")
    if not (isinstance(x, list) and isinstance(y, list) and x and len(x) == len(y)):
        return None
    if not all(isinstance(each, (str, int, float)) for each in x) or not all(
        isinstance(each, (int, float)) for each in y
    ):
        return None
    points = tuple(
        (each if isinstance(each, str) else float(each), float(height)) for each, height in zip(x, y, strict=True)
    )
    finite = all(math.isfinite(part) for point in points for part in point if not isinstance(part, str))
    return Series(str(value.get("label") or ""), points) if finite else None


def charts_of(told: Any) -> list[Chart]:
    """The charts that a program's sandbox tells of; what is none is left out, since the program may have said it."""
    out = []
    for each in told.get("charts", ()) if isinstance(told, Mapping) else ():
        if not isinstance(each, Mapping) or not isinstance(each.get("series"), list):
            continue
        found = [(str(one.get("kind")), s) for one in each["series"] if isinstance(one, Mapping) and (s := _told(one))]
        if found:
            kinds = [kind for kind, _ in found]
            series = tuple(one for _, one in found)
            out.append(Chart(max(dict.fromkeys(kinds), key=kinds.count), series, _readable(each, kinds, series)))
    return out


def _told(value: Mapping[str, Any]) -> Series | None:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(each, list) and len(each) == 2 for each in points):
        return None
    return _series({"label": value.get("label"), "x": [each[0] for each in points], "y": [each[1] for each in points]})


def _readable(chart: Mapping[str, Any], kinds: Sequence[str], series: Sequence[Series]) -> int:
    pie = kinds[0] == "pie"
    axes = all(chart.get(name) for name in ("x", "y")) or (
        pie and all(isinstance(x, str) and x for x, _ in series[0].points)
    )
    several = len(series) > 1 and kinds[0] != "heatmap"
    return sum(
        (bool(chart.get("title")), axes, bool(chart.get("legend")) or not several, chart.get("crowded") is False)
    )


# data ------------------------------------------------------------------------------------------------------------------


def same_place(drawn: str | float, wanted: str | float) -> bool:
    """Two x are equal: as numbers, or as words."""
    a, b = (number(each) if isinstance(each, str) else each for each in (drawn, wanted))
    if a is not None and b is not None:
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-9)
    return normal_words(str(drawn)) == normal_words(str(wanted))


def same_height(drawn: float, wanted: float) -> bool:
    """Two y are equal, up to rounding."""
    return math.isclose(drawn, wanted, rel_tol=ROUNDED, abs_tol=1e-9)


def common_points(drawn: Sequence[Point], wanted: Sequence[Point]) -> int:
    """How many points both have, each once."""
    left = list(wanted)
    found = 0
    for x, y in drawn:
        hit = next((i for i, point in enumerate(left) if same_height(y, point[1]) and same_place(x, point[0])), None)
        if hit is not None:
            del left[hit]
            found += 1
    return found


def shares(series: Sequence[Series]) -> tuple[Series, ...]:
    """Series whose heights add up to 1 each, as a pie shows them."""
    sums = [math.fsum(y for _, y in each.points) for each in series]
    return tuple(
        Series(each.label, tuple((x, y / whole) for x, y in each.points)) if whole > 0 else each
        for each, whole in zip(series, sums, strict=True)
    )


def data_f1(drawn: Chart, wanted: Chart) -> float:
    """2 common points / (points drawn + points wanted), series by series, in whatever order.

    A series drawn is compared with the one that it has most points in common with; of equal ones, with one of its name.
    """
    left, found = list(shares(wanted.series) if "pie" in (drawn.kind, wanted.kind) else wanted.series), 0
    mine = shares(drawn.series) if "pie" in (drawn.kind, wanted.kind) else drawn.series
    count = sum(len(each.points) for each in (*mine, *left))
    pairs = sorted(
        (
            (-common_points(a.points, b.points), normal_words(a.label) != normal_words(b.label), i, k)
            for i, a in enumerate(mine)
            for k, b in enumerate(left)
        )
    )
    taken: tuple[set[int], set[int]] = (set(), set())
    for lacking, other, i, k in pairs:
        if i not in taken[0] and k not in taken[1]:
            taken[0].add(i)
            taken[1].add(k)
            # Series that are told apart by their names belong to these.
            named = len(left) > 1 and bool(left[k].label) and bool(mine[i].label)
            found += -lacking if not (named and other) else 0
    return 2 * found / count if count else 0.0


def best(drawn: Sequence[Chart], wanted: Chart) -> tuple[float, Chart | None]:
    """The chart drawn whose data fit best, and how well; (0, None) where none is drawn."""
    scored = [(data_f1(each, wanted), each) for each in drawn]
    return max(scored, key=lambda each: each[0], default=(0.0, None))


def ratings(fit: float, chart: Chart | None) -> tuple[int, int]:
    """(readability, correctness) of a chart from 1 to 5, both 0 without one.

    Args:
        fit: F1 of its data.
    """
    if chart is None:
        return 0, 0
    return 1 + chart.readable, 1 + sum(fit >= at for at in (0.3, 0.6, 0.9, 0.99))


# rewards ---------------------------------------------------------------------------------------------------------------


def shape(gold: str, answer: str, match: bool) -> float:
    """s: 1 of an answer that matches; of two numbers 1 - min(1, |(gold - answer) / (gold + 1e-15)|); else 0.

    Source: arXiv:2601.04582.
    """
    if match:
        return 1.0
    try:
        wanted, said = (float(text.replace("%", "")) for text in (gold, answer))
    except ValueError:
        return 0.0
    if not (math.isfinite(wanted) and math.isfinite(said)):
        return 0.0
    return 1.0 - min(1.0, abs((wanted - said) / (wanted + 1e-15)))


def text_reward(s: float, blend: float = 0.6) -> float:
    """blend s + (1 - blend) [s >= 0.999]. Source: arXiv:2601.04582."""
    return blend * s + (1 - blend) * (s >= 0.999)


def code_reward(executed: bool, intent: bool) -> float:
    """1 of a program that runs and draws what was meant, 0.5 of one that does one of them. Source: arXiv:2601.04582."""
    return 0.5 * (bool(executed) + bool(intent))


def visual_reward(executed: bool, readability: int, correctness: int) -> float:
    """1 if both ratings are 4 or more, 0.5 if both are 3 or more, 0.25 if one is, else 0. Source: arXiv:2601.04582."""
    low, high = sorted((readability, correctness)) if executed else (0, 0)
    return 1.0 if low >= 4 else 0.5 if low >= 3 else 0.25 * (high >= 3)


def composite(
    s: float,
    executed: bool,
    intent: bool,
    readability: int,
    correctness: int,
    *,
    blend: float = 0.6,
    weights: Sequence[float] = (0.5, 0.25, 0.25),
) -> float:
    """The weighted sum of text, code and visual reward, in [0, 1]. Source: arXiv:2601.04582."""
    parts = (text_reward(s, blend), code_reward(executed, intent), visual_reward(executed, readability, correctness))
    return math.fsum(weight * part for weight, part in zip(weights, parts, strict=True))
