"""Numbers and differences in words."""

from __future__ import annotations

import math

from cohort.analysis.findings import Contrast
from cohort.analysis.measure import Measure
from cohort.analysis.statistics import ALPHA


def shown(value: float, what: Measure, *, sign: bool = False, unit: bool = False, error: float = math.nan) -> str:
    """A number as tables show it; shares in percent, their differences (`sign`) in points.

    Args:
        error: how far it may be off, in its own unit; no more digits are shown than two of that.
    """
    if math.isnan(value):
        return "-"
    scaled, off = value * what.scale, abs(error) * what.scale
    digits = 0 if abs(scaled) >= 1000 else 1 if what.unit == "%" or abs(scaled) >= 10 else 2 if what.unit else 3
    if off > 0:
        fine = max(0, 1 - math.floor(math.log10(off)))
        digits = min(4, fine if what.unit != "%" else max(1, fine) if off < 0.1 else 1)
    ending = f" {'points' if what.unit == '%' and sign else what.unit}" if what.unit and unit else ""
    # Rounded first: what rounds to 0 has no sign.
    return f"{round(scaled, digits) + 0.0:{'+' if sign else ''}.{digits}f}{ending}"


def sentence(found: Contrast, what: Measure) -> str:
    """A difference in words."""
    value, error = found.estimate.value, (found.high - found.low) / 2
    if math.isnan(value):
        return "not measured for both"
    size = shown(value, what, sign=True, unit=True, error=error)
    if math.isnan(found.estimate.se):
        return f"{size}; one run of each says nothing of its error"
    if value == 0 and found.estimate.se == 0 and found.low == found.high:
        return "the same"
    if found.corrected < ALPHA:
        more = value > 0
        words = {1: ("better", "worse"), -1: ("worse", "better"), 0: ("higher", "lower")}[what.better]
        ends = (found.low, found.high) if more else (-found.high, -found.low)
        size = shown(abs(value), what, sign=True, unit=True, error=error).lstrip("+")
        near, far = (shown(each, what, error=error) for each in ends)
        return f"{words[0] if more else words[1]} by {size} [{near}, {far}]"
    low, high = (shown(each, what, sign=True, error=error) for each in (found.low, found.high))
    said = f"no difference shown at this size ({size} [{low}, {high}])"
    if found.seeds_needed is not None:
        count = max(found.seeds_needed, found.estimate.seeds + 1)
        return f"{said}: it would take about {count} seeds"
    if math.isnan(found.estimate.seed_variance):
        return f"{said}: with one seed it is not known how many it would take"
    if found.estimate.problems:
        return f"{said}: seeds alone would not show it; it would take more evaluation problems"
    return f"{said}: it would take more than 1000 seeds"
