"""Small statistics that several diagnoses share."""

from __future__ import annotations

import numpy as np

from cohort.doctor.record import Floats, Rollouts, Series


def percent(share: float) -> str:
    """0.256 -> "26 %"; small shares with a digit more."""
    return f"{share:.0%}".replace("%", " %") if share >= 0.1 or share == 0 else f"{share:.1%}".replace("%", " %")


def within_groups(values: Floats, rollouts: Rollouts) -> Floats:
    """Values less the mean of their group: [N]; NaN where the group has no other value."""
    out = np.full(len(values), np.nan)
    for rows in rollouts.groups:
        known = rows[~np.isnan(values[rows])]
        if len(known) > 1:
            out[known] = values[known] - values[known].mean()
    return out


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's, over the entries that both have; NaN where one of them does not vary."""
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < 3 or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def auc(scores: Floats, positive: Floats) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half; NaN without both."""
    known = ~np.isnan(scores)
    scores, wanted = scores[known], positive[known] > 0.5
    if not wanted.any() or wanted.all():
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    few = int(wanted.sum())
    return float((ranks[wanted].sum() - few * (few + 1) / 2) / (few * (len(wanted) - few)))


def running_median(values: Floats, window: int = 20, least: int = 5) -> Floats:
    """Median of the up to `window` values before each: [S]; NaN for the first `least`."""
    out = np.full(len(values), np.nan)
    for i in range(least, len(values)):
        out[i] = np.median(values[max(0, i - window) : i])
    return out


def steps_of(series: Series, first: int, last: int) -> tuple[int, ...]:
    """Steps of a series from `first` to `last`."""
    return tuple(int(step) for step in series.steps if first <= step <= last)


def mean_of(parts: list[Floats]) -> float:
    """Mean over all of them, NaN left out; NaN where there is none."""
    whole = np.concatenate(parts) if parts else np.empty(0)
    whole = whole[~np.isnan(whole)]
    return float(whole.mean()) if len(whole) else float("nan")
