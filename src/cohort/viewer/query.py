"""What the viewer shows of a run: pure functions from what is stored to plain values for JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cohort.analysis.episodes import messages_of, turns_of
from cohort.analysis.files import number, printable
from cohort.analysis.store import Run
from cohort.viewer.question import question


class Rollouts(Protocol):
    """What stores rollouts: a `Run`, or a run that is followed."""

    def rollout_columns(self, step: int) -> list[str]: ...

    def rollouts(self, step: int, columns: Sequence[str] | None = None) -> pa.Table | None: ...


PREVIEW = 240
"""Characters of a prompt or completion in a list of rollouts."""
MOST_CELLS = 20_000_000
"""Numbers in one answer; further metrics of a run that has more are left out."""

_SUMMED = ("accuracy_before", "accuracy_after")
_TEXTS = ("prompt_id", "prompt", "question", "completion")
_EPISODE = ("end", "error", "agent", "turns", "opening")
_BRIEF = (*_TEXTS, *_EPISODE, "group", "reward", "accuracy", "finished", "trained", "kept", "length", "advantage_mean")
# What the numbers of a rollout are made of where a run did not store them.
_INSTEAD = {"length": ("tokens",), "advantage_mean": ("advantage", "mask"), "old_entropy": ("sampler_logp",)}
# Null where the numbers of the tokens were not recorded; runs of other versions have the latter alone.
_RECORDED = ("old_entropy", "sampler_logp")


@dataclass(frozen=True)
class Filter:
    """Which rollouts are wanted; what is None or empty is not asked for.

    Attributes:
        text: in the completion or the prompt, whatever the case.
        prompt: id of a prompt, or text in it.
        reward_min, reward_max: of the weighted reward.
        length_min, length_max: in tokens.
        correct: the verifier's verdict (accuracy of a half or more).
        truncated: cut at the token limit.
        trained: went into the update.
        zero_signal: of a group whose rewards are all equal.
    """

    text: str = ""
    prompt: str = ""
    reward_min: float | None = None
    reward_max: float | None = None
    length_min: int | None = None
    length_max: int | None = None
    correct: bool | None = None
    truncated: bool | None = None
    trained: bool | None = None
    zero_signal: bool | None = None

    def keeps(self, table: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a step's rollouts are wanted: [N]."""
        keep = np.ones(table.num_rows, dtype=bool)
        if self.text:
            keep &= _contains(table, "completion", self.text) | _contains(table, "prompt", self.text)
        if self.prompt:
            keep &= _equals(table, "prompt_id", self.prompt) | _contains(table, "prompt", self.prompt)
        if self.reward_min is not None or self.reward_max is not None:
            keep &= _within(numbers(table, "reward"), self.reward_min, self.reward_max)
        if self.length_min is not None or self.length_max is not None:
            keep &= _within(lengths(table), self.length_min, self.length_max)
        if self.correct is not None:
            keep &= _is(numbers(table, "accuracy") - 0.5, self.correct)
        if self.truncated is not None:
            keep &= _is(0.5 - numbers(table, "finished"), self.truncated)
        if self.trained is not None:
            keep &= _is(numbers(table, "trained") - 0.5, self.trained)
        if self.zero_signal is not None:
            keep &= zero_signal(table) == self.zero_signal
        return keep

    @property
    def columns(self) -> list[str]:
        """What `keeps` reads."""
        wanted = {
            "prompt": self.text or self.prompt,
            "completion": self.text,
            "prompt_id": self.prompt,
            "group": self.zero_signal is not None,
            "reward": self.reward_min is not None or self.reward_max is not None or self.zero_signal is not None,
            "length": self.length_min is not None or self.length_max is not None,
            "tokens": self.length_min is not None or self.length_max is not None,
            "accuracy": self.correct is not None,
            "finished": self.truncated is not None,
            "trained": self.trained is not None,
        }
        return [name for name, asked in wanted.items() if asked] or ["reward"]


def status(run: Run) -> dict[str, Any]:
    """What stands at the head of a run: method, model, steps made and planned, its last numbers."""
    first, last = (run.metrics[0], run.metrics[-1]) if run.metrics else ({}, {})
    steps = number(run.config.get("steps"))
    return {
        "folder": printable(str(run.folder)),
        **{name: _short(run.config.get(name)) for name in ("method", "model", "seed")},
        "step": last.get("step", 0),
        "steps": steps if steps is not None and steps > 0 else None,
        "rewritten": run.rewritten,
        "first": {"accuracy": first.get("accuracy")},
        "last": {name: last.get(name) for name in ("accuracy", "reward/mean", "time/step", "tokens")},
        "summary": {name: number(run.summary.get(name)) for name in _SUMMED if name in run.summary},
    }


def metrics(run: Run, after: int = 0) -> dict[str, Any]:
    """Metrics by column, of the steps after one: {"steps": [S], "values": {name: [S]}}; null where not defined."""
    rows = [row for row in run.metrics if row["step"] > after]
    every = dict.fromkeys(name for row in rows for name in row if name != "step")
    names = list(every)[: MOST_CELLS // max(1, len(rows))]
    values = {name: [_number(row.get(name)) for row in rows] for name in names}
    return {
        "steps": [row["step"] for row in rows],
        "values": {name: column for name, column in values.items() if any(value is not None for value in column)},
        "rewritten": run.rewritten,
    }


def configurations(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Every configuration key of the runs: {"key", "values": {run: value}, "differs"}; what differs stands first."""
    flat = {name: dict(_flat(run.config)) for name, run in runs.items()}
    keys = list(dict.fromkeys(key for config in flat.values() for key in config))
    rows = []
    for key in keys:
        values = {name: plain(config.get(key)) for name, config in flat.items()}
        first = next(iter(values.values()), None)
        rows.append({"key": key, "values": values, "differs": any(value != first for value in values.values())})
    return sorted(rows, key=lambda row: not row["differs"])


def findings(run: Run) -> dict[str, Any]:
    """What the doctor says of a run: `Report.to_dict()`, the worst findings first."""
    from cohort.doctor import examine

    found: dict[str, Any] = plain(examine(run).to_dict())
    return found


def step_rollouts(source: Rollouts, step: int, wanted: Filter) -> dict[str, Any] | None:
    """The rollouts of a step that are wanted, without their tokens, and what the step is like; None if it cannot be read."""
    table = brief(source, step)
    if table is None:
        return None
    rows = np.flatnonzero(wanted.keeps(table))
    rewards = numbers(table, "reward")
    return {
        "step": step,
        "sampled": table.num_rows,
        "groups": len(set(table["group"].to_pylist())) if "group" in table.column_names else 0,
        "reward": _mean(rewards),
        "accuracy": _mean(numbers(table, "accuracy")),
        "length": _mean(lengths(table)),
        "components": components(table),
        "rollouts": describe(table, step, rows),
    }


def search(
    source: Rollouts, steps: Iterable[int], wanted: Filter, *, limit: int = 200, seconds: float = 2.0
) -> dict[str, Any]:
    """Look for rollouts in many steps, reading only the columns that decide, until enough are found or time is up.

    Returns:
        rollouts: as in `step_rollouts`; steps_read; next: the step to go on with, or None if all were looked through;
        why: "limit" or "time" if it stopped before the end.
    """
    end = time.monotonic() + seconds
    found: list[dict[str, Any]] = []
    read_steps = 0
    names: list[str] = []
    remaining = list(steps)
    for position, step in enumerate(remaining):
        why = "limit" if len(found) >= limit else "time" if position and time.monotonic() > end else None
        if why:
            return {"rollouts": found, "components": names, "steps_read": read_steps, "next": step, "why": why}
        table = source.rollouts(step, wanted.columns)
        read_steps += 1
        if table is None:
            continue
        rows = np.flatnonzero(wanted.keeps(table))
        if len(rows):
            whole = brief(source, step)
            if whole is not None:
                names = list(dict.fromkeys([*names, *components(whole)]))
                found += describe(whole, step, rows)
    return {"rollouts": found, "components": names, "steps_read": read_steps, "next": None, "why": None}


def group(source: Rollouts, step: int, number: int) -> dict[str, Any] | None:
    """A group of a step with whole texts; None if the step cannot be read or has no such group."""
    table = brief(source, step)
    if table is None or "group" not in table.column_names:
        return None
    rows = np.flatnonzero(numbers(table, "group") == number)
    if not len(rows):
        return None
    found = describe(table, step, rows, preview=None)
    rewards = numbers(table, "reward")[rows]
    known = rewards[np.isfinite(rewards)]
    return {
        "step": step,
        "group": number,
        "prompt_id": found[0]["prompt_id"],
        "prompt": found[0]["prompt"],
        "components": components(table),
        "mean": _mean(rewards),
        "std": _number(float(np.std(known))) if len(known) else None,
        "rollouts": found,
    }


def brief(source: Rollouts, step: int) -> pa.Table | None:
    """A step's rollouts without the numbers of each token; None if they cannot be read."""
    known = source.rollout_columns(step)
    wanted = {*_BRIEF, *_RECORDED[:1], *(name for name in known if name.startswith(("reward/", "raw/")))}
    wanted |= {each for name, others in _INSTEAD.items() if name not in known for each in others}
    return source.rollouts(step, [name for name in known if name in wanted] or _BRIEF)


def describe(
    table: pa.Table, step: int, rows: Sequence[int] | NDArray[Any], preview: int | None = PREVIEW
) -> list[Any]:
    """Rollouts without their tokens.

    Args:
        rows: which, in the order wanted.
        preview: most characters of the texts; None for whole ones.
    """
    known = set(table.column_names)
    chosen = (
        table.select([name for name in (*_TEXTS, *_EPISODE, "finished", "trained", "kept") if name in known])
        .take(rows)
        .to_pydict()
    )
    numeric = {name: numbers(table, name) for name in ("reward", "accuracy", "group") if name in known}
    parts = {name: numbers(table, f"reward/{name}") for name in components(table)}
    before = {name: numbers(table, f"raw/{name}") for name in parts if f"raw/{name}" in known}
    length, signal, advantage, counted = lengths(table), zero_signal(table), mean_advantage(table), recorded(table)
    out = []
    for position, row in enumerate(rows):
        row = int(row)
        texts = {name: chosen.get(name, [None] * len(rows))[position] for name in _TEXTS}
        if texts["question"] is None and texts["prompt"] is not None:
            texts["question"] = question(texts["prompt"])
        turns = chosen["turns"][position] if "turns" in known else None
        episode = {name: chosen[name][position] if name in known else None for name in ("end", "error", "agent")}
        if preview is None:
            opening = chosen["opening"][position] if "opening" in known else None
            episode |= {"opening": messages_of(opening), "said": turns_of(turns)}
        out.append(
            {
                "step": step,
                "row": row,
                **{name: text if preview is None else _cut(text, preview) for name, text in texts.items()},
                **{name: _number(values[row]) for name, values in numeric.items()},
                "components": {name: _number(values[row]) for name, values in parts.items()},
                "raw": {name: _number(values[row]) for name, values in before.items()},
                "finished": chosen["finished"][position] if "finished" in known else None,
                "trained": chosen["trained"][position] if "trained" in known else None,
                "kept": chosen["kept"][position] if "kept" in known else None,
                **episode,
                "turns": None if turns is None else len(turns),
                "length": _integer(length[row]),
                "advantage": _number(advantage[row]),
                "zero_signal": bool(signal[row]),
                "recorded": bool(counted[row]),
            }
        )
    return out


def components(table: pa.Table) -> list[str]:
    """Names of the reward components."""
    return [name.removeprefix("reward/") for name in table.column_names if name.startswith("reward/")]


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as numbers: [N]; NaN where it is null or the file has no such column."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name].combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def lengths(table: pa.Table) -> NDArray[np.float64]:
    """Tokens of each completion: [N]; NaN where they were not recorded."""
    found = numbers(table, "length")
    if "tokens" in table.column_names:
        counted = pc.list_value_length(table["tokens"]).cast(pa.float64()).combine_chunks()
        found = np.where(np.isnan(found), counted.to_numpy(zero_copy_only=False), found)
    return found


def recorded(table: pa.Table) -> NDArray[np.bool_]:
    """Rows whose tokens have numbers: [N]."""
    name = next((name for name in _RECORDED if name in table.column_names), None)
    if name is None:
        return np.zeros(table.num_rows, dtype=bool)
    return np.asarray(table[name].combine_chunks().is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def zero_signal(table: pa.Table) -> NDArray[np.bool_]:
    """Rows of groups whose rewards are all equal: [N]."""
    if "group" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    rewards = numbers(table, "reward")
    _, inverse = np.unique(numbers(table, "group"), return_inverse=True)
    count = int(inverse.max()) + 1 if len(inverse) else 0
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    # Rollouts without a reward say nothing of their group.
    np.fmin.at(low, inverse, rewards)
    np.fmax.at(high, inverse, rewards)
    return np.asarray((low == high)[inverse], dtype=bool)


def mean_advantage(table: pa.Table) -> NDArray[np.float64]:
    """Mean advantage after credit over the tokens that the policy chose: [N]; NaN where it was not recorded."""
    out = numbers(table, "advantage_mean")
    if "advantage_mean" in table.column_names or "advantage" not in table.column_names:
        return out
    column = table["advantage"].combine_chunks()
    masks = table["mask"].combine_chunks() if "mask" in table.column_names else None
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(~np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)):
        own = values[offsets[row] : offsets[row + 1]]
        if masks is not None and masks[int(row)].is_valid:
            start = masks.offsets[int(row)].as_py()
            chosen = masks.values.to_numpy(zero_copy_only=False)[start : start + len(own)] == 1
            own = own[chosen] if len(chosen) == len(own) else own
        if len(own):
            out[row] = own.mean()
    return out


def plain(value: Any) -> Any:
    """What JSON can say: numbers that it has no words for become None, what it does not know becomes a text."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else printable(str(value))


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _contains(table: pa.Table, name: str, text: str) -> NDArray[np.bool_]:
    if name not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    found = pc.match_substring(table[name].cast(pa.string()), text, ignore_case=True)
    return np.asarray(pc.fill_null(found, False).combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def _equals(table: pa.Table, name: str, text: str) -> NDArray[np.bool_]:
    if name not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    found = pc.equal(table[name].cast(pa.string()), text)
    return np.asarray(pc.fill_null(found, False).combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)


def _within(values: NDArray[np.float64], low: float | None, high: float | None) -> NDArray[np.bool_]:
    # Rewards are stored in float32: 0.1 typed by a user must find 0.1 stored.
    slack = 1e-6 * np.maximum(1.0, np.abs(values))
    keep = ~np.isnan(values)
    if low is not None:
        keep &= values >= low - slack
    if high is not None:
        keep &= values <= high + slack
    return keep


def _is(above: NDArray[np.float64], wanted: bool) -> NDArray[np.bool_]:
    """What is not known is neither."""
    return above >= 0 if wanted else above < 0


def _number(value: Any) -> Any:
    """To seven digits, which is what float32 holds; None where it is not finite."""
    if isinstance(value, bool | str) or value is None:
        return value
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.7g}")


def _integer(value: float) -> int | None:
    return None if math.isnan(value) else int(value)


def _mean(values: NDArray[np.float64]) -> float | None:
    values = values[np.isfinite(values)]
    return _number(values.mean()) if len(values) else None


def _short(value: Any) -> Any:
    """A setting as the page shows it, whatever it is."""
    return value if value is None or isinstance(value, int | float) else _cut(str(value), PREVIEW)


def _cut(text: str | None, most: int) -> str | None:
    return text if text is None or len(text) <= most else text[: most - 1] + "…"
