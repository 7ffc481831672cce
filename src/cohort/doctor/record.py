"""What a diagnosis of a run sees: configuration, metrics, and the rollouts of some of its steps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cohort.analysis.episodes import turns_of
from cohort.doctor.finding import Missing
from cohort.errors import UsageError
from cohort.rewards.spec import RewardSpec, parse

# Numbers of rollouts, and the lists that they can be made of.
MADE_OF = {"length": ("mask",), "logp_mean": ("mask", "sampler_logp")}
# Fewest steps that show a course, and most of a run that is short.
FEW, SHORT = 8, 24
# Columns that are null where nothing says how good a rollout is.
VERDICTS = frozenset({"reward", "accuracy"})
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """A metric over steps: both [S], steps ascending; only where it is defined."""

    name: str
    steps: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def window(self) -> int:
        """Steps that its end is averaged over: a fifth of them, at least 5, but at most a quarter."""
        return max(1, min(len(self) // 4, max(5, len(self) // 5)))

    @property
    def head(self) -> int:
        """Steps that its beginning is averaged over: 3, since much can happen in the first ten; fewer in a short run."""
        return max(1, min(3, len(self) // 8))

    @cached_property
    def start(self) -> float:
        """Mean of the first steps."""
        return float(self.values[: self.head].mean())

    @cached_property
    def end(self) -> float:
        """Mean of the last window."""
        return float(self.values[-self.window :].mean())

    @cached_property
    def noise(self) -> float:
        """Standard error of `end - start`. The noise of one step is taken from the differences between neighbours, which
        a slow trend hardly moves."""
        each = float(np.diff(self.values).std()) / np.sqrt(2) if len(self) > 2 else float("inf")
        return float(each * np.sqrt(1 / self.head + 1 / self.window))

    @property
    def rise(self) -> float:
        """`end - start`."""
        return self.end - self.start

    @cached_property
    def trend(self) -> float:
        """Standard errors by which more pairs of steps rise than fall (Mann and Kendall's test); 0 for long series.

        In a short run most of the differences between neighbours is the trend itself, and `noise` takes it for noise.
        """
        count = len(self)
        if count > SHORT:
            return 0.0
        balance = float(np.triu(np.sign(self.values[None, :] - self.values[:, None])).sum())
        ties = np.unique(self.values, return_counts=True)[1].astype(np.float64)
        spread = (count * (count - 1) * (2 * count + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
        return float(np.sign(balance)) * max(0.0, abs(balance) - 1) / math.sqrt(spread) if spread > 0 else 0.0

    def rises(self, sigmas: float = 3.0) -> bool:
        """The end lies above the start by more than noise."""
        return self.rise > sigmas * self.noise or (self.rise > 0 and self.trend > sigmas)

    def falls(self, sigmas: float = 3.0) -> bool:
        """The end lies below the start by more than noise."""
        return -self.rise > sigmas * self.noise or (self.rise < 0 and -self.trend > sigmas)

    @property
    def last(self) -> tuple[int, int]:
        """First and last step of the last window."""
        return int(self.steps[-self.window]), int(self.steps[-1])


@dataclass(frozen=True)
class Rollouts:
    """Rollouts of a step; columns as docs/metrics.md says."""

    step: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __contains__(self, name: str) -> bool:
        known = self.table.column_names
        return name in known or (name in MADE_OF and all(made in known for made in MADE_OF[name]))

    def numbers(self, name: str) -> Floats:
        """A column of numbers: [N], NaN where there is none. `length` and `logp_mean` are made from the tokens where they
        are not stored."""
        if name in MADE_OF and name not in self.table.column_names:
            return self._lengths() if name == "length" else self._logp_mean()
        column = self.table.column(name).cast(pa.float64())
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)

    def known(self, names: Sequence[str]) -> Rollouts:
        """Those of which it is known what is asked of reward and accuracy: no reward may apply to the others."""
        rows = np.ones(len(self), dtype=bool)
        for name in VERDICTS & set(names):
            rows &= ~np.isnan(self.numbers(name))
        return self if rows.all() else Rollouts(self.step, self.table.filter(pa.array(rows)))

    def texts(self, name: str) -> list[str]:
        """A column of texts: N."""
        return [value or "" for value in self.table.column(name).to_pylist()]

    def lists(self, name: str) -> list[Floats | None]:
        """A column of lists with one number a token: N arrays; None where the run stored none."""
        if name not in self:
            return [None] * len(self)
        column = self.table.column(name).combine_chunks()
        if pa.types.is_null(column.type):
            return [None] * len(self)
        values = np.asarray(column.values.to_numpy(zero_copy_only=False), dtype=np.float64)
        offsets, known = column.offsets.to_numpy(), column.is_valid().to_numpy(zero_copy_only=False)
        return [values[offsets[i] : offsets[i + 1]] if known[i] else None for i in range(len(column))]

    @cached_property
    def episodes(self) -> list[list[dict[str, Any]]]:
        """The turns of each rollout; see `cohort.analysis.episodes.turns_of`."""
        return [turns_of(turns) for turns in self.table.column("turns").to_pylist()]

    @cached_property
    def groups(self) -> list[Ints]:
        """Rows of each group."""
        index = self.numbers("group").astype(np.int64)
        order = np.argsort(index, kind="stable")
        cuts = np.flatnonzero(np.diff(index[order])) + 1
        return [part.astype(np.int64) for part in np.split(order, cuts) if len(part)]

    @cached_property
    def policy_tokens(self) -> list[Floats | None]:
        """1 for tokens that the policy chose, a list a rollout."""
        return self.lists("mask")

    def _logp_mean(self) -> Floats:
        out = np.full(len(self), np.nan)
        for i, (values, mask) in enumerate(zip(self.lists("sampler_logp"), self.policy_tokens, strict=True)):
            if values is not None and mask is not None and mask.any():
                out[i] = values[mask > 0].mean()
        return out

    def _lengths(self) -> Floats:
        return np.array([np.nan if mask is None else mask.sum() for mask in self.policy_tokens])


@dataclass(frozen=True)
class Record:
    """What is known of a run.

    Attributes:
        name: of the run.
        config: what its config.yaml holds.
        rows: one mapping a step, in the order of steps.
        summary: what summary.json holds, once the run is over.
        rollouts: of a sample of its steps, ascending.
        why_no_rollouts: what to say where there are none.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    rollouts: Sequence[Rollouts] = ()
    why_no_rollouts: str = "needs rollouts, of which the run stored none"

    # what is there ---------------------------------------------------------------------------------------------------

    def series(self, name: str, at_least: int = 1) -> Series:
        """A metric.

        Raises:
            Missing: it is not recorded, or for fewer steps than that.
        """
        known = ((row["step"], row.get(name)) for row in self.rows)
        found = [(step, value) for step, value in known if isinstance(value, int | float) and math.isfinite(value)]
        if not found:
            raise Missing(f"needs the metric `{name}`")
        if len(found) < at_least:
            raise Missing(f"needs `{name}` of {at_least} steps, and has {len(found)}")
        steps, values = zip(*found, strict=True)
        return Series(name, np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))

    def series_or_none(self, name: str, at_least: int = 1) -> Series | None:
        """A metric, or None where it is not recorded."""
        try:
            return self.series(name, at_least)
        except Missing:
            return None

    def samples(self, *columns: str, at_least: int = 1) -> list[Rollouts]:
        """Rollouts that have the columns.

        Raises:
            Missing: there are none, or of fewer steps than that.
        """
        if not self.rollouts:
            raise Missing(self.why_no_rollouts)
        for name in columns:
            if not any(name in each for each in self.rollouts):
                raise Missing(f"needs the column `{name}` of the rollouts")
        found = [each.known(columns) for each in self.rollouts if all(name in each for name in columns)]
        found = [each for each in found if len(each)]
        if len(found) < at_least:
            raise Missing(f"needs rollouts of {at_least} steps, and has {len(found)}")
        return found

    def recent(self, *columns: str, most: int = 5) -> list[Rollouts]:
        """Rollouts of the last steps of the sample.

        Raises:
            Missing: there are none.
        """
        return self.samples(*columns)[-most:]

    @property
    def held_out(self) -> list[tuple[int, float]]:
        """(step, accuracy) on held-out prompts, from before the run to after it."""
        found = [(0, self.summary["accuracy_before"])] if "accuracy_before" in self.summary else []
        found += [(row["step"], row["eval/accuracy"]) for row in self.rows if row.get("eval/accuracy") is not None]
        if "accuracy_after" in self.summary:
            found.append((int(self.summary.get("steps", 0)), self.summary["accuracy_after"]))
        return [(int(step), float(value)) for step, value in found]

    @cached_property
    def specs(self) -> list[RewardSpec]:
        """The reward components that the configuration names."""
        named = self.config.get("reward")
        if not isinstance(named, list):
            return []
        texts = [re.sub(r"<Python function (.*)>", r"\1", str(text)) for text in named]
        try:
            return parse(texts) if texts else []
        except UsageError:
            return []

    @property
    def weights(self) -> dict[str, float]:
        """Reward component -> its weight in the sum, with a schedule that of the last step."""
        last = self.rows[-1] if self.rows else {}
        return {spec.name: float(last.get(f"weight/{spec.name}", spec.weight)) for spec in self.specs}

    @property
    def correctness(self) -> str | None:
        """The reward component that says what is correct."""
        asked = self.config.get("accuracy")
        names = [spec.name for spec in self.specs]
        return asked or next((spec.name for spec in self.specs if spec.verifies), names[0] if names else None)

    @property
    def drawn(self) -> bool:
        """True if rollouts were drawn, rather than taken from stored completions."""
        return not (self.config.get("pairs") and not self.config.get("data"))

    @property
    def answered(self) -> bool:
        """True if an environment or tools answer the policy."""
        return any(row.get("episode/turns_mean") is not None for row in self.rows)

    # where it is seen ------------------------------------------------------------------------------------------------

    def metric(self, name: str) -> str:
        """Where the viewer shows a metric."""
        return f"#/run/{quote(self.name)}/metric/{quote(name)}"

    def at(self, step: int) -> str:
        """Where the viewer shows a step's rollouts."""
        return f"#/run/{quote(self.name)}/step/{step}"
