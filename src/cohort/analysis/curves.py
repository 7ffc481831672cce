"""Metrics along a run: curves against steps, tokens and seconds, and bands of several seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cohort.analysis.findings import Entry
from cohort.analysis.statistics import Floats
from cohort.analysis.store import Run

AXES = ("step", "tokens", "trained", "seconds")


@dataclass(frozen=True)
class Curve:
    """A number that was measured several times in a run.

    Attributes:
        at: axis ("step", "tokens" sampled, tokens "trained" on, "seconds" of training) -> [n] where; NaN if not known.
        values: [n].
    """

    at: Mapping[str, Floats]
    values: Floats

    def __len__(self) -> int:
        return len(self.values)


def axes_of(run: Run) -> dict[str, Floats]:
    """axis -> [steps] how far the run was after each of its steps."""

    def column(name: str) -> Floats:
        return np.array([_float(row.get(name)) for row in run.metrics], dtype=np.float64)

    times = column("time/step")
    seconds = np.cumsum(np.nan_to_num(times)) if np.isfinite(times).any() else times
    return {"step": column("step"), "tokens": column("tokens"), "trained": column("tokens_trained"), "seconds": seconds}


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def curve(run: Run, name: str) -> Curve:
    """A metric over the run's steps, where it is defined."""
    values = np.array([_float(row.get(name)) for row in run.metrics], dtype=np.float64)
    known = ~np.isnan(values)
    return Curve({axis: at[known] for axis, at in axes_of(run).items()}, values[known])


def accuracy_curve(run: Run) -> Curve:
    """Greedy accuracy on held-out problems: before training, at evaluations in between, and after it."""
    found = curve(run, "eval/accuracy")
    before, after = (_float(run.summary.get(f"accuracy_{when}")) for when in ("before", "after"))
    last = {axis: at[-1:] if len(at) else np.array([math.nan]) for axis, at in axes_of(run).items()}
    at, values = dict(found.at), found.values
    if not math.isnan(before):
        at, values = {axis: np.append(0.0, where) for axis, where in at.items()}, np.append(before, values)
    if not math.isnan(after):
        at, values = {axis: np.append(where, last[axis]) for axis, where in at.items()}, np.append(values, after)
    return Curve(at, values)


def first_at(found: Curve, target: float, axis: str) -> tuple[float, bool]:
    """(where on the axis the curve first reaches a value, True), drawn straight between its points; where it never does,
    (its end, False)."""
    at, values = found.at[axis], found.values
    high = np.flatnonzero(values >= target)
    if not len(values) or math.isnan(target):
        return math.nan, False
    if not len(high):
        return float(at[-1]), False
    i = int(high[0])
    if i == 0 or values[i] == values[i - 1]:
        return float(at[i]), True
    part = (target - values[i - 1]) / (values[i] - values[i - 1])
    return float(at[i - 1] + part * (at[i] - at[i - 1])), True


def value_at(found: Curve, where: float, axis: str) -> float:
    """The curve's value at a place of an axis, drawn straight between its points; NaN beyond them."""
    at = found.at[axis]
    known = ~np.isnan(at)
    if not known.any() or where > at[known][-1] * (1 + 1e-9) or where < at[known][0]:
        return math.nan
    return float(np.interp(where, at[known], found.values[known]))


GRID = 100  # points of a curve against tokens or seconds
MOST = 200  # points of a curve against steps
PLOTTED = (
    "accuracy",
    "reward/mean",
    "entropy",
    "completion/length_mean",
    "completion/truncated",
    "kl",
    "grad_norm",
    "zero_signal_groups",
)


def curves_of(entries: Sequence[Entry]) -> dict[str, dict[str, dict[str, dict[str, list[float]]]]]:
    """metric -> axis -> entry -> columns x, mean, low, high over seeds."""
    runs = [run for entry in entries for run in entry.runs.values()]
    named = dict.fromkeys(name for run in runs for name in run.names())
    metrics = [name for name in named if name in PLOTTED or (name.startswith("reward/") and name != "reward/mean")]
    out: dict[str, dict[str, dict[str, dict[str, list[float]]]]] = {}
    for metric in ["held-out accuracy", *sorted(metrics, key=lambda m: PLOTTED.index(m) if m in PLOTTED else 2)]:
        for entry in entries:
            found = []
            for run in entry.runs.values():
                each = accuracy_curve(run) if metric == "held-out accuracy" else smoothed(curve(run, metric))
                if len(each) > (1 if metric == "held-out accuracy" else 0):
                    found.append(each)
            for axis in ("step", "tokens", "seconds") if found else ():
                columns = band(found, axis)
                if columns["x"]:
                    out.setdefault(metric, {}).setdefault(axis, {})[entry.name] = columns
    return out


def smoothed(found: Curve) -> Curve:
    """The curve with every value replaced by the mean of those around it, a twentieth of the run at most."""
    half = len(found) // 40
    if not half:
        return found
    padded = np.pad(found.values, half, mode="edge")
    return Curve(found.at, np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid"))


def band(curves: Sequence[Curve], axis: str) -> dict[str, list[float]]:
    """Mean, lowest and highest of several curves, where all of them are."""
    places = [each.at[axis][~np.isnan(each.at[axis])] for each in curves]
    if not places or any(not len(place) for place in places):
        return {"x": [], "mean": [], "low": [], "high": []}
    start, end = max(float(p[0]) for p in places), min(float(p[-1]) for p in places)
    if axis == "step":
        grid = np.unique(np.concatenate(places))
        grid = grid[(grid >= start) & (grid <= end)]
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(MOST, len(grid))).astype(int))] if len(grid) else grid
    else:
        grid = np.linspace(start, end, GRID) if end > start else np.array([start])
    values = np.array([np.interp(grid, each.at[axis], each.values) for each in curves])
    columns = {"x": grid, "mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    return {name: [float(f"{v:.6g}") for v in column] for name, column in columns.items()}
