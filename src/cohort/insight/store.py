"""Reading a run's folder, whether it is finished, still being written, or was cut by a crash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cohort.errors import UsageError


@dataclass
class _Lines:
    """What was read of a metrics file so far: whole lines are parsed once, a line without its end is tried again."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    count: int = 0
    end: int = 0
    last: bytes = b""

    def follow(self, file: BinaryIO) -> bool:
        """Read what was appended. True if what was read before has changed."""
        file.seek(self.end - len(self.last))
        changed = file.read(len(self.last)) != self.last
        if changed:
            self.rows, self.broken, self.count, self.end, self.last = {}, [], 0, 0, b""
            file.seek(0)
        *whole, tail = file.read().split(b"\n")
        for line in whole:
            self.count += 1
            changed |= self._add(line, self.broken)
            self.end += len(line) + 1
            self.last = line + b"\n"
        self.cut = []
        self.count += 1
        changed |= self._add(tail, self.cut)
        self.count -= 1
        return changed

    def _add(self, line: bytes, broken: list[int]) -> bool:
        try:
            row = json.loads(line.decode(errors="replace"))
            step = int(row["step"])
        except (ValueError, TypeError, KeyError):
            if line.strip():
                broken.append(self.count)
            return False
        known = self.rows.get(step)
        self.rows[step] = row
        return known is not None and known != row


@dataclass
class Run:
    """A run's folder. Nothing is kept in memory but what was asked for; `refresh` reads what was written since.

    Attributes:
        folder: of the run.
        config: what config.yaml holds; empty if it cannot be read.
        summary: what summary.json holds; empty while the run goes on.
        metrics: one mapping a step, in the order of steps; null values are None.
        problems: what could not be read, in plain sentences.
        rewritten: how often steps that were read before have changed since (a resumed run drops some and makes them anew).
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rewritten: int = 0
    _lines: _Lines = field(default_factory=lambda: _Lines(), repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def rollouts_folder(self) -> Path:
        return self.folder / "rollouts"

    def refresh(self) -> None:
        """Read again what may have changed."""
        self.problems = []
        self.config = self._read("config.yaml", yaml.safe_load)
        self.summary = self._read("summary.json", json.loads) if (self.folder / "summary.json").exists() else {}
        self.metrics = self._metrics()

    def _read(self, name: str, parse: Any) -> dict[str, Any]:
        try:
            found = parse((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.problems.append(f"{self.folder / name} cannot be read: {str(error).splitlines()[0]}")
            return {}
        if not isinstance(found, dict):
            self.problems.append(f"{self.folder / name} holds no mapping")
            return {}
        return found

    def _metrics(self) -> list[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        lines = self._lines
        try:
            with path.open("rb") as file:
                self.rewritten += lines.follow(file)
        except OSError as error:
            self.problems.append(f"{path} cannot be read: {error.strerror}")
            return []
        broken = lines.broken + lines.cut
        if broken:
            which = ", ".join(map(str, broken[:5])) + (" ..." if len(broken) > 5 else "")
            self.problems.append(f"{path}: {len(broken)} line(s) hold no step and are left out: {which}")
        return [lines.rows[step] for step in sorted(lines.rows)]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """(steps, values) of a metric, where it is defined."""
        found = [(row["step"], row[name]) for row in self.metrics if isinstance(row.get(name), int | float)]
        return [step for step, _ in found], [float(value) for _, value in found]

    def names(self) -> list[str]:
        """Of all metrics, in the order in which they appear."""
        return list(dict.fromkeys(name for row in self.metrics for name in row if name != "step"))

    def steps(self) -> list[int]:
        """Steps whose rollouts are stored."""
        found = (path.stem.removeprefix("step-") for path in self.rollouts_folder.glob("step-*.parquet"))
        return sorted(int(step) for step in found if step.isdigit())

    def rollout_path(self, step: int) -> Path:
        """The file of a step's rollouts, whether there is one or not."""
        return self.rollouts_folder / f"step-{step:06d}.parquet"

    def rollout_columns(self, step: int) -> list[str]:
        """Columns of a step's rollouts; none if there are no rollouts to be read."""
        try:
            return list(pq.read_schema(self.rollout_path(step)).names)
        except (OSError, pa.ArrowException):
            return []

    def rollouts(self, step: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """The rollouts of a step (docs/metrics.md says what the columns are), or None if there are none to be read;
        what was wrong is then added to `problems`.

        Args:
            columns: those to read, where the file has them; None reads all.
        """
        path = self.rollout_path(step)
        if not path.exists():
            return None
        try:
            with pq.ParquetFile(path) as file:
                known = file.schema_arrow.names
                return file.read(None if columns is None else [name for name in columns if name in known])
        except (OSError, pa.ArrowException) as error:
            said = f"{path} cannot be read and is left out: {str(error).splitlines()[0]}"
            if said not in self.problems:
                self.problems.append(said)
            return None


def open_run(folder: str | Path) -> Run:
    """The run in a folder.

    Raises:
        UsageError: there is none; says what runs are near.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise UsageError(f"{folder} is no run: {_why(folder)}")
    run = Run(folder)
    run.refresh()
    return run


def is_run(folder: Path) -> bool:
    """True if a run wrote into the folder."""
    return (folder / "metrics.jsonl").exists() or (folder / "config.yaml").exists()


def find_runs(folder: Path) -> list[Path]:
    """Runs in a folder, at any depth of up to three, by name."""
    found = [path.parent for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}/config.yaml")]
    return sorted(path for path in set(found) if is_run(path))


def _why(folder: Path) -> str:
    near = find_runs(folder if folder.is_dir() else folder.parent if folder.parent.is_dir() else Path())
    known = f"; runs near it: {', '.join(map(str, near[:8]))}" if near else ""
    if not folder.exists():
        return f"there is no such folder{known}"
    return f"it holds neither config.yaml nor metrics.jsonl{known}"
