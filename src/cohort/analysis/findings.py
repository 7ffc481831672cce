"""What a comparison says: measures of entries, and their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cohort.analysis.statistics import Estimate
from cohort.analysis.store import Run

HEADLINE = "pass@1"


@dataclass(frozen=True)
class Entry:
    """What is compared: a method, or a setting of one.

    Attributes:
        name: in tables.
        runs: seed -> run.
        settings: parameter -> value, of a sweep.
    """

    name: str
    runs: Mapping[int, Run]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A measure of an entry on a data set, with its 95 % interval.

    Attributes:
        reached: (runs that reached the target, runs), of measures of when it was reached.
    """

    entry: str
    data: str
    measure: str
    estimate: Estimate
    low: float
    high: float
    reached: tuple[int, int] | None = None


@dataclass(frozen=True)
class Contrast:
    """A difference to the first entry.

    Attributes:
        low, high: interval at the level of its step of Holm's procedure, over the entries compared with the first.
        p, corrected: two-sided p-value, and the same corrected.
        paired: True if runs of the same seeds were compared.
        seeds_needed: seeds that would show a difference of this size with a chance of 80 %, where some would.
        sentence: the same in words.
    """

    entry: str
    reference: str
    data: str
    measure: str
    estimate: Estimate
    low: float
    high: float
    p: float
    corrected: float
    paired: bool
    seeds_needed: int | None
    sentence: str


@dataclass
class Findings:
    """All that a comparison says.

    Attributes:
        entries: names, the first one is what others are compared with.
        data: names of the data sets measured on.
        notes: what a reader must know to read the numbers right.
        runs: a row a run: what it is, how it ended, and its measures.
        curves: metric -> axis -> entry -> columns x, mean, low, high (the lowest and highest of its seeds).
        passes: data -> entry -> columns k, mean, low, high of pass@k; votes: the same of maj@k.
        reliability: entry -> rows (mean confidence, share correct, completions).
        settings: entry -> parameter -> value, of a sweep.
        shared: what all runs have in common of model, data and rewards.
        target: accuracy of "tokens to target"; equal_tokens: of "at equal tokens".
    """

    entries: list[str]
    data: list[str]
    results: list[Result] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, dict[str, dict[str, list[float]]]]] = field(default_factory=dict)
    passes: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    votes: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    reliability: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    target: float = math.nan
    equal_tokens: float = math.nan

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)
