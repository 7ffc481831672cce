"""The runs that the viewer shows, each read again when something was written."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from cohort.analysis.files import Unreadable, printable, regular
from cohort.analysis.store import Run, find_runs, is_run, open_run
from cohort.errors import UsageError
from cohort.viewer.query import findings

# How long nothing may be written before a run without a summary counts as stopped: at least, and in mean step times.
QUIET_SECONDS, QUIET_STEPS = 60.0, 10.0
PART = 8_000_000
"""Bytes of metrics that are read for one answer, so that a run with very many does not keep the others waiting."""
FILES = ("metrics.jsonl", "config.yaml", "summary.json")


class Followed:
    """A run that may still be written to. Requests come in several threads: use it inside `fresh()`.

    Attributes:
        name: under which the viewer shows it; unique, and the same for the same folders.
        run: its folder.
    """

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.run = run
        self._lock = threading.RLock()
        self._examining = threading.Lock()
        self._findings: tuple[object, dict[str, Any]] | None = None
        self._signature: object = None
        self._folder_time = 0
        self._seen: dict[int, tuple[int, int]] = {}
        self._unreadable: dict[int, str] = {}

    @contextmanager
    def fresh(self) -> Iterator[Run]:
        """The run as it stands now, for one thread at a time."""
        with self._lock:
            signature = self._files_as_they_are()
            if signature != self._signature or self.run.unread:
                self.run.refresh(PART)
                self._signature = signature
            self._look_at_files()
            yield self.run

    def _files_as_they_are(self) -> list[tuple[str, int, int]]:
        return [(name, state.st_mtime_ns, state.st_size) for name, state in self._states()]

    def _states(self) -> Iterator[tuple[str, os.stat_result]]:
        for name in FILES:
            try:
                yield name, regular(self.run.folder / name)
            except Unreadable:
                continue

    def rollout_columns(self, step: int) -> list[str]:
        """As `Run.rollout_columns`."""
        return self.run.rollout_columns(step)

    def rollouts(self, step: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """As `Run.rollouts`; what was wrong stays among the problems until the step can be read."""
        with self._lock:
            before = list(self.run.problems)
            found = self.run.rollouts(step, columns)
            new = [said for said in self.run.problems if said not in before]
            if new:
                self._unreadable[step] = new[0]
            elif found is not None:
                self._unreadable.pop(step, None)
            return found

    def findings(self) -> dict[str, Any]:
        """What the doctor says, once for each state of the run: he reads rollouts of many steps."""
        with self._examining:
            with self._lock:
                signature = self._files_as_they_are()
            if self._findings is None or self._findings[0] != signature:
                # A run of its own: he may take seconds, while others want to read this one.
                self._findings = signature, findings(open_run(self.run.folder))
            return self._findings[1]

    @property
    def problems(self) -> list[str]:
        """What cannot be read, in plain sentences."""
        return list(dict.fromkeys([*self.run.problems, *self._unreadable.values()]))

    @property
    def state(self) -> str:
        """`finished`, `running`, `stopped` where nothing was written for long, or `broken` where nothing can be read."""
        if self.problems and not self.run.metrics and not self.run.config:
            return "broken"
        if self.run.summary:
            return "finished"
        times = [row["time/step"] for row in self.run.metrics[-20:] if row.get("time/step") is not None]
        patience = max(QUIET_SECONDS, QUIET_STEPS * sum(times) / len(times) if times else 0.0)
        return "running" if time.time() - self.written < patience else "stopped"

    @property
    def written(self) -> float:
        """When something was written last, in seconds since 1970."""
        return max((state.st_mtime for _, state in self._states()), default=0.0)

    def _look_at_files(self) -> None:
        """A Parquet file ends with its index; one that does not was cut. Each file is looked at once."""
        try:
            changed = self.run.rollouts_folder.stat().st_mtime_ns
        except OSError:
            return
        if changed == self._folder_time:
            return
        self._folder_time = changed
        for step in self.run.steps():
            path = self.run.rollout_path(step)
            try:
                state = regular(path)
                if self._seen.get(step) == (state.st_mtime_ns, state.st_size):
                    continue
                self._seen[step] = (state.st_mtime_ns, state.st_size)
                with path.open("rb") as file:
                    file.seek(max(0, state.st_size - 4))
                    whole = file.read(4) == b"PAR1"
            except (OSError, Unreadable):
                whole = False
            if not whole:
                self.rollouts(step, ["reward"])


class RunIndex:
    """All runs of a session of the viewer.

    Args:
        folders: of runs, or folders that hold runs. What a folder comes to hold later is found too.

    Raises:
        UsageError: a folder is no run and holds none; says what runs are near.
    """

    RESCAN_SECONDS = 3.0

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = list(folders)
        self._runs: dict[Path, Followed] = {}
        self._lock = threading.Lock()
        self._scanned = 0.0
        for folder in self._folders:
            if not is_run(folder) and not find_runs(folder):
                open_run(folder)
        self._scan()

    def all(self) -> list[Followed]:
        """Every run, in the order given, then by name."""
        with self._lock:
            if time.monotonic() - self._scanned > self.RESCAN_SECONDS:
                self._scan()
            return list(self._runs.values())

    def get(self, name: str) -> Followed:
        """
        Raises:
            UsageError: there is no run of this name.
        """
        runs = {each.name: each for each in self.all()}
        if name not in runs:
            raise UsageError(f"there is no run {name!r} here; there are {', '.join(runs) or 'none'}")
        return runs[name]

    def _scan(self) -> None:
        folders = [path for given in self._folders for path in ([given] if is_run(given) else find_runs(given))]
        folders = [path for path in dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders) if is_run(path)]
        names = short_names(folders)
        for path in [path for path in self._runs if path not in folders]:
            del self._runs[path]
        for path, name in zip(folders, names, strict=True):
            if path in self._runs:
                self._runs[path].name = name
            else:
                self._runs[path] = Followed(name, Run(path))
        self._runs = {path: self._runs[path] for path in folders}
        self._scanned = time.monotonic()


def short_names(folders: Sequence[Path]) -> list[str]:
    """As few last parts of each path as tell it from the others."""
    names = []
    for path in folders:
        for parts in range(1, len(path.parts) + 1):
            name = "/".join(path.parts[-parts:])
            if sum("/".join(other.parts[-parts:]) == name for other in folders) == 1:
                break
        name = printable(name)
        # Names of files that are no UTF-8 may look the same.
        while name in names:
            name += "'"
        names.append(name)
    return names
