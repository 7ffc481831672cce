"""Reading a run's folder, whether it is finished, still being written, was cut by a crash, or is no run of ours at all."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.analysis import columns as kinds
from cohort.analysis.configuration import flat
from cohort.analysis.files import (
    Unreadable,
    entries,
    first_line,
    folders,
    number,
    of_bytes,
    parse_yaml,
    printable,
    read_mapping,
    regular,
)
from cohort.errors import UsageError

# What is read at most: a run of 50,000 steps stays far below all of it, and none of it takes longer than a few seconds.
MOST_CONFIG, MOST_SUMMARY = 256_000, 4_000_000
MOST_METRICS, LONGEST_LINE, MOST_NAMES = 64_000_000, 1_000_000, 1000
MOST_PASSED = 1_000_000_000  # bytes of the file up to the last line that is read; lines that are too long cost little
MOST_ROWS, MOST_LEAVES = 1_000_000, 300_000_000
# Further ones would not be told apart by a program that has doubles alone.
LAST_STEP = 2**53


@dataclass
class _Lines:
    """What was read of a metrics file so far: whole lines are parsed once, a line without its end is tried again."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    count: int = 0
    end: int = 0
    held: int = 0
    last: bytes = b""
    more: bool = False
    full: bool = False

    def follow(self, file: BinaryIO, most: int) -> bool:
        """Read at most so many bytes of what was appended. True if what was read before has changed."""
        file.seek(self.end - len(self.last))
        changed = file.read(len(self.last)) != self.last
        if changed:
            self.rows, self.broken, self.odd, self.names = {}, [], {}, set()
            self.count, self.end, self.held, self.last = 0, 0, 0, b""
            file.seek(0)
        stop = min(self.held + most, MOST_METRICS)
        self.cut, self.more, self.full = [], False, False
        while line := file.readline(LONGEST_LINE):
            if self.held >= stop or self.end >= MOST_PASSED:
                self.full = self.held >= MOST_METRICS or self.end >= MOST_PASSED
                self.more = not self.full
                break
            parts, size = [line], len(line)
            # A line that is too long is passed over without being held.
            while not parts[-1].endswith(b"\n") and size < MOST_PASSED and (part := file.readline(LONGEST_LINE)):
                parts, size = [part], size + len(part)
            self.count += 1
            if not parts[-1].endswith(b"\n"):
                changed |= self._add(line if size == len(line) else b"", self.cut, force=size > len(line))
                self.count -= 1
                break
            changed |= self._add(line if size == len(line) else b"", self.broken, force=size > len(line))
            self.end += size
            self.held += size if size == len(line) else 0
            self.last = parts[-1][-4096:]
        return changed

    def _add(self, line: bytes, broken: list[int], *, force: bool = False) -> bool:
        try:
            step, row = self._row(json.loads(line.decode(errors="replace")))
        except (ValueError, TypeError, KeyError, RecursionError):
            if force or line.strip():
                broken.append(self.count)
            return False
        known = self.rows.get(step)
        self.rows[step] = row
        return known is not None and known != row

    def _row(self, found: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A step and its metrics: numbers that are finite, all else None.

        Raises:
            ValueError, TypeError, KeyError: it is no step.
        """
        step = number(found["step"])
        if step is None or isinstance(found["step"], bool) or step != int(step) or not 0 <= step < LAST_STEP:
            raise ValueError(f"{found['step']} is no step")
        row: dict[str, Any] = {"step": int(step)}
        for name, value in found.items():
            if name == "step":
                continue
            # The same names stand in every line: one text for all of them.
            name = sys.intern(printable(name))
            if name not in self.names:
                if len(self.names) >= MOST_NAMES:
                    continue
                self.names.add(name)
            row[name] = number(value)
            if row[name] is None and not isinstance(value, float | None):
                self.odd.setdefault(name, self.count)
        return row["step"], row


@dataclass
class Run:
    """A run's folder. Nothing is kept in memory but what was asked for; `refresh` reads what was written since.

    Attributes:
        folder: of the run.
        config: what config.yaml holds, as plain values by the keys' own names; empty if it cannot be read.
        summary: what summary.json holds, as plain values; empty while the run goes on.
        metrics: one mapping a step, in the order of steps; values that are null or no finite numbers are None.
        problems: what could not be read, in plain sentences.
        rewritten: how often steps that were read before have changed since (a resumed run drops some and makes them anew).
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rewritten: int = 0
    _lines: _Lines = field(default_factory=_Lines, repr=False)
    _known: dict[str, tuple[object, dict[str, Any], str]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return printable(self.folder.name)

    @property
    def rollouts_folder(self) -> Path:
        return self.folder / "rollouts"

    @property
    def unread(self) -> bool:
        """True if the metrics file has more than was read by the last `refresh`, which the next one goes on with."""
        return self._lines.more

    def refresh(self, most: int = MOST_METRICS) -> None:
        """Read again what may have changed.

        Args:
            most: bytes of metrics that are read, at least a line.
        """
        self.problems = []
        self.config = flat(self._read("config.yaml", parse_yaml, MOST_CONFIG))
        there = os.path.lexists(self.folder / "summary.json")
        self.summary = self._read("summary.json", json.loads, MOST_SUMMARY) if there else {}
        self.metrics = self._metrics(most)
        try:
            os.scandir(self.rollouts_folder).close()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._problem(self.rollouts_folder, f" cannot be read: {error.strerror}")

    def _problem(self, path: Path, what: str) -> None:
        said = printable(f"{path}{what}")
        if said not in self.problems:
            self.problems.append(said)

    def _read(self, name: str, parse: Callable[[str], Any], most: int) -> dict[str, Any]:
        path = self.folder / name
        try:
            state = regular(path)
            seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        except Unreadable:
            seen = None
        known = self._known.get(name)
        if known is None or seen is None or known[0] != seen:
            try:
                known = (seen, read_mapping(path, parse, most=most), "")
            except Unreadable as error:
                known = (seen, {}, f" cannot be read: {error}")
            self._known[name] = known
        if known[2]:
            self._problem(path, known[2])
        return known[1]

    def _metrics(self, most: int) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        lines = self._lines
        try:
            size = regular(path).st_size
            with path.open("rb") as file:
                self.rewritten += lines.follow(file, most)
        except (OSError, Unreadable) as error:
            self._problem(path, f" cannot be read: {getattr(error, 'strerror', None) or error}")
            return []
        broken = lines.broken + lines.cut
        if broken:
            which = ", ".join(map(str, broken[:5])) + (" ..." if len(broken) > 5 else "")
            self._problem(path, f": {len(broken)} line(s) hold no step and are left out: {which}")
        for name, line in list(lines.odd.items())[:3]:
            self._problem(path, f", line {line}: `{name[:80]}` is no number and is left out")
        if len(lines.names) >= MOST_NAMES:
            self._problem(path, f" has {MOST_NAMES} metrics or more, and the others are left out")
        if lines.full:
            last = f", up to step {max(lines.rows)}" if lines.rows else ""
            self._problem(path, f" holds {of_bytes(size)}, of which the first {of_bytes(lines.end)} are read{last}")
        return [lines.rows[step] for step in sorted(lines.rows)]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """(steps, values) of a metric, where it is defined."""
        found = [(row["step"], row[name]) for row in self.metrics if row.get(name) is not None]
        return [step for step, _ in found], [float(value) for _, value in found]

    def names(self) -> list[str]:
        """Of all metrics, in the order in which they appear."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))

    def steps(self) -> list[int]:
        """Steps whose rollouts are stored."""
        found = (re.fullmatch(r"step-([0-9]{6,15})\.parquet", each.name) for each in entries(self.rollouts_folder))
        steps = {int(each[1]): each[0] for each in found if each}
        return sorted(step for step, name in steps.items() if name == self.rollout_path(step).name)

    def rollout_path(self, step: int) -> Path:
        """The file of a step's rollouts, whether there is one or not."""
        return self.rollouts_folder / f"step-{step:06d}.parquet"

    def rollout_columns(self, step: int) -> list[str]:
        """Columns of a step's rollouts; none if there are no rollouts to be read."""
        try:
            regular(self.rollout_path(step))
            return list(dict.fromkeys(pq.read_schema(self.rollout_path(step)).names))
        except (OSError, pa.ArrowException, ValueError, Unreadable):
            return []

    def rollouts(self, step: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """The rollouts of a step (docs/metrics.md says what the columns are), or None if there are none to be read;
        what was wrong is then added to `problems`. A column of another kind than it should be is left out.

        Args:
            columns: those to read, where the file has them; None reads all.
        """
        path = self.rollout_path(step)
        if not os.path.lexists(path):
            return None
        try:
            regular(path)
            with pq.ParquetFile(path) as file:
                known = file.schema_arrow.names
                wanted = None if columns is None else [name for name in dict.fromkeys(columns) if name in known]
                _check_size(file, wanted)
                table, odd = kinds.regular(file.read(wanted))
        except (OSError, pa.ArrowException, ValueError, MemoryError, Unreadable) as error:
            self._problem(path, f" cannot be read and is left out: {first_line(error)}")
            return None
        for what in odd:
            self._problem(path, f": {what}")
        return table


def _check_size(file: pq.ParquetFile, wanted: Sequence[str] | None) -> None:
    """A few bytes can stand for billions of values.

    Raises:
        Unreadable: there are more than a step can have.
    """
    known = file.metadata
    if known.num_rows > MOST_ROWS:
        raise Unreadable(f"it has {known.num_rows:,} rows, and at most {MOST_ROWS:,} are read")
    leaves = 0
    for part in range(known.num_row_groups):
        group = known.row_group(part)
        for at in range(group.num_columns):
            column = group.column(at)
            if wanted is None or column.path_in_schema.split(".")[0] in wanted:
                leaves += column.num_values
    if leaves > MOST_LEAVES:
        raise Unreadable(f"it has {leaves:,} values, and at most {MOST_LEAVES:,} are read")


def open_run(folder: str | Path) -> Run:
    """The run in a folder.

    Raises:
        UsageError: there is none; says what runs are near.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise UsageError(printable(f"{folder} is no run: {_why(folder)}"))
    run = Run(folder)
    run.refresh()
    return run


def is_run(folder: Path) -> bool:
    """True if a run wrote into the folder."""
    # os.path says no where a folder may not be read; Path raises.
    return any(os.path.lexists(folder / name) for name in ("metrics.jsonl", "config.yaml"))


def find_runs(folder: Path) -> list[Path]:
    """Runs in a folder, at any depth of up to three, by name; not the attempts that a run moved aside in its own folder."""
    found = [path for path in folders(folder, 3) if is_run(path)]
    aside = {path for path in found if path.name.startswith("attempt-") and path.parent in found}
    return sorted(set(found) - aside)


def _why(folder: Path) -> str:
    inside = os.path.isdir(folder)
    near = find_runs(folder if inside else folder.parent if os.path.isdir(folder.parent) else Path())
    known = f"; runs near it: {', '.join(map(str, near[:8]))}" if near else ""
    if not os.path.lexists(folder):
        return f"there is no such folder{known}"
    if not inside:
        return f"it is no folder{known}"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"it may not be read{known}"
    return f"it holds neither config.yaml nor metrics.jsonl{known}"
