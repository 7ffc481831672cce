"""Inside the sandbox: a program draws, and what its figures show is told as JSON.

This file is run as text by the interpreter of the sandbox, and imports nothing of cohort. The program is read from standard
input. What it prints goes to standard error; standard output is for what it drew.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

# Series of all figures, and points of all series, that are told.
MOST_SERIES, MOST_POINTS = 100, 5000


def main() -> None:
    """Run the program, and tell what it drew."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    program = sys.stdin.read()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy

    # Figures are looked at when the program has ended, whatever it does to show them.
    plt.show = lambda *args, **named: None
    plt.close = lambda *args, **named: None
    names = {"__name__": "__main__", "plt": plt, "np": numpy}
    exec(compile(program, "program.py", "exec", dont_inherit=True), names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.savefig(io.BytesIO(), format="png", dpi=60)
    found = [chart for figure in figures for chart in charts(figure)]
    json.dump({"figures": len(figures), "charts": found}, told, allow_nan=False)
    told.close()


def charts(figure: Any) -> Iterator[dict[str, Any]]:
    """What each axes of a figure shows, where it shows data."""
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        found = [each for each in series(axes) if each["points"]][:MOST_SERIES]
        if not found:
            continue
        legend = axes.get_legend()
        yield {
            "title": axes.get_title() or (figure._suptitle.get_text() if figure._suptitle is not None else ""),
            "x": axes.get_xlabel(),
            "y": axes.get_ylabel(),
            "legend": [] if legend is None else [text.get_text() for text in legend.get_texts()],
            "crowded": any(crowded(axis) for axis in (axes.xaxis, axes.yaxis)),
            "series": found,
        }


def series(axes: Any) -> Iterator[dict[str, Any]]:
    """The series of an axes: kind, label, points (x as a text or a number, y)."""
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.container import BarContainer, ErrorbarContainer
    from matplotlib.patches import Wedge

    names = {"x": tick_names(axes.xaxis), "y": tick_names(axes.yaxis)}
    bars = [each for each in axes.containers if isinstance(each, BarContainer)]
    caps = {cap for each in axes.containers if isinstance(each, ErrorbarContainer) for cap in each.lines[1]}

    def told(kind: str, artist: Any, points: Any, *, across: bool = False) -> dict[str, Any]:
        low = "y" if across else "x"
        places = [(float(x), float(y)) for x, y in points if finite(x, y)]
        # Bars of a group stand beside their tick.
        seen = [(named(x, names[low], kind == "bar"), y) for x, y in places if inside(axes, x, y, across)]
        label = str(artist.get_label() or "")
        return {"kind": kind, "label": "" if label.startswith("_") else label, "points": seen[:MOST_POINTS]}

    for line in axes.lines:
        # A line across the whole axes stands for no data.
        if line.get_transform() == axes.transData and line not in caps and drawn_line(line):
            yield told("line", line, line.get_xydata().tolist())
    for bar in bars:
        across = getattr(bar, "orientation", "vertical") == "horizontal"
        shown = [each for each in bar.patches if filled(each)]
        if across:
            points = [(each.get_y() + each.get_height() / 2, each.get_width()) for each in shown]
        else:
            points = [(each.get_x() + each.get_width() / 2, each.get_height()) for each in shown]
        yield told("bar", bar, points, across=across)
    wedges = [each for each in axes.patches if isinstance(each, Wedge) and filled(each)]
    if wedges:
        shares = [(str(each.get_label()), (each.theta2 - each.theta1) / 360) for each in wedges]
        legend = axes.get_legend()
        told_apart = [] if legend is None else [text.get_text() for text in legend.get_texts()]
        if len(told_apart) == len(shares):
            shares = [(name, share) for name, (_, share) in zip(told_apart, shares, strict=True)]
        shares = [("" if name.startswith("_") else name, share) for name, share in shares]
        yield {"kind": "pie", "label": "", "points": shares[:MOST_POINTS]}
    for group in axes.collections:
        if not visible(group):
            continue
        if isinstance(group, PathCollection) and some_colour(group.get_facecolor(), group.get_edgecolor()):
            places: Any = group.get_offsets()
            yield told("scatter", group, places.tolist())
        elif isinstance(group, PolyCollection) and len(group.get_paths()) == 1 and some_colour(group.get_facecolor()):
            outline: Any = group.get_paths()[0].vertices
            yield told("area", group, between(outline.tolist()))
    for image in axes.images:
        values: Any = getattr(image.get_array(), "tolist", list)()
        if visible(image) and values and isinstance(values[0], list) and not isinstance(values[0][0], list):
            for row, each in enumerate(values[:MOST_SERIES]):
                points = [(named(float(x), names["x"]), float(y)) for x, y in enumerate(each) if finite(y)]
                yield {"kind": "heatmap", "label": str(named(float(row), names["y"])), "points": points[:MOST_POINTS]}


def between(vertices: list[list[float]]) -> list[tuple[float, float]]:
    """x and height of what is filled between two lines, of its outline."""
    count = (len(vertices) - 3) // 2
    upper, lower = vertices[1 : 1 + count], vertices[2 + count : 2 + 2 * count][::-1]
    return [(a[0], abs(a[1] - b[1])) for a, b in zip(upper, lower, strict=False) if a[0] == b[0]]


def tick_names(axis: Any) -> list[tuple[float, str]]:
    """Places and names of an axis whose ticks are named; none of one that shows numbers. A day is named by its date."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.dates import DateConverter
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

    converter = axis.get_converter() if hasattr(axis, "get_converter") else getattr(axis, "converter", None)
    if isinstance(converter, DateConverter) or "Date" in type(converter).__name__:
        return [(math.nan, "")]
    formatter = axis.get_major_formatter()
    if isinstance(formatter, StrCategoryFormatter):
        return [(float(place), str(name)) for name, place in axis.units._mapping.items()]
    # Named ticks stand at fixed places; another function of numbers writes them in some form.
    at_places = isinstance(formatter, FuncFormatter) and isinstance(axis.get_major_locator(), FixedLocator)
    if at_places or isinstance(formatter, FixedFormatter):
        places = axis.get_majorticklocs().tolist()
        texts = [label.get_text() for label in axis.get_majorticklabels()]
        return [(float(place), text) for place, text in zip(places, texts, strict=False) if text]
    return []


def named(x: Any, names: list[tuple[float, str]], near: bool = False) -> Any:
    """The name of the tick at a place, or nearest to it; the date of one on an axis of days; else the place."""
    if names and math.isnan(names[0][0]):
        from matplotlib.dates import num2date

        when = num2date(x).replace(tzinfo=None)
        return when.date().isoformat() if when.time().isoformat() == "00:00:00" else when.isoformat()
    if not names:
        return x
    places = sorted(place for place, _ in names)
    gap = min((b - a for a, b in pairwise(places)), default=1.0)
    place, name = min(names, key=lambda each: abs(each[0] - x))
    return name if abs(place - x) <= gap * (0.5 if near else 1e-6) else x


def finite(*values: Any) -> bool:
    """All are numbers; a gap in the data is none."""
    try:
        return all(math.isfinite(each) for each in values)
    except (TypeError, ValueError):
        return False


def inside(axes: Any, x: float, y: float, across: bool) -> bool:
    """A point lies within what the axes shows."""
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    x, y = (y, x) if across else (x, y)
    wide, tall = (right - left) * 1e-6, (high - low) * 1e-6
    return bool(left - wide <= x <= right + wide and low - tall <= y <= high + tall)


def visible(artist: Any) -> bool:
    """It is drawn, and can be seen through little enough."""
    alpha = artist.get_alpha()
    return bool(artist.get_visible()) and (alpha is None or (isinstance(alpha, (int, float)) and alpha > 0.05))


def some_colour(*colours: Any) -> bool:
    """One of some lists of colours has one that is not transparent."""
    return any(each[-1] > 0.05 for colour in colours for each in getattr(colour, "tolist", list)())


def drawn_line(line: Any) -> bool:
    """A line has a stroke or marks that can be seen."""
    from matplotlib.colors import to_rgba

    stroke = line.get_linestyle() not in ("None", "none", "", " ") and line.get_linewidth() > 0
    marks = line.get_marker() not in ("None", "none", "", " ", None) and line.get_markersize() > 0
    return bool(visible(line) and (stroke or marks) and to_rgba(line.get_color())[-1] > 0.05)


def filled(patch: Any) -> bool:
    """A patch has an area or an outline that can be seen."""
    edge = patch.get_edgecolor()[-1] > 0.05 and patch.get_linewidth() > 0
    return bool(visible(patch) and (patch.get_facecolor()[-1] > 0.05 or edge))


def crowded(axis: Any) -> bool:
    """Names of neighbouring ticks overlap."""
    boxes = [
        label.get_window_extent() for label in axis.get_majorticklabels() if label.get_text() and label.get_visible()
    ]
    turned = any(label.get_rotation() % 180 not in (0.0, 90.0) for label in axis.get_majorticklabels())
    return not turned and any(a.overlaps(b) for a, b in pairwise(boxes))


if __name__ == "__main__":
    main()
