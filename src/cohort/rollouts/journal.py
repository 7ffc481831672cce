"""Rollouts that wait to be trained on, as plain values, and the journal that they are written to before they are used.

The journal is a folder of files with a line a group of rollouts, and a line that ends a step. Each line is on the disk
before the next is written, and holds its checksum, so what a kill leaves behind is read as far as it is whole. A file begins
with the step that it is named by, and ends where a checkpoint was written: one that holds nothing but steps which an earlier
checkpoint has is removed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch

from cohort.errors import StorageError
from cohort.files import sync
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.sources import Drawn
from cohort.types import Prompt
from cohort.types.declare import State

# The folder's name in that of a run.
JOURNAL = "ahead"


@dataclass(frozen=True)
class Ready:
    """The rollouts of a step, drawn and not trained on yet.

    Attributes:
        handed: what drawing changed in the method's states: key of a state -> field -> value.
        source: the state of the source behind them.
        aside: further plain values of whoever drew them.
    """

    drawn: Drawn
    handed: Mapping[str, State]
    source: Mapping[str, Any]
    aside: Mapping[str, Any]


def packed(ready: Ready) -> dict[str, Any]:
    """As tensors and plain values, prompts by identity."""
    drawn = ready.drawn
    place = {id(rollout): at for at, rollout in enumerate(drawn.rollouts)}
    return {
        "rollouts": [stored(rollout) for rollout in drawn.rollouts],
        "chosen": [place[id(rollout)] for rollout in drawn.chosen],
        "auxiliary": [stored(rollout) for rollout in drawn.auxiliary],
        "tokens": drawn.tokens,
        "metrics": dict(drawn.metrics),
        "notes": list(drawn.notes),
        "handed": {key: dict(state) for key, state in ready.handed.items()},
        "source": dict(ready.source),
        "aside": dict(ready.aside),
    }


def unpacked(state: Mapping[str, Any], prompts: Mapping[str, Prompt]) -> Ready:
    """What `packed` gave.

    Raises:
        KeyError: a prompt is none of `prompts`.
    """
    rollouts, auxiliary = (
        [restored(each, prompts[each["prompt"]]) for each in state[kind]] for kind in ("rollouts", "auxiliary")
    )
    drawn = Drawn(rollouts, [rollouts[at] for at in state["chosen"]], {}, auxiliary, state["tokens"])
    drawn = replace(drawn, metrics=state["metrics"], notes=state["notes"])
    return Ready(drawn, state["handed"], state["source"], state["aside"])


class Journal:
    """See the module.

    Args:
        folder: made with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[bytes] | None = None
        # Lines are written in another thread than files are removed in.
        self._lock = threading.Lock()

    def append(self, step: int, state: Mapping[str, Any]) -> None:
        """Write what `packed` gave of a step, a line for each of its groups.

        Raises:
            StorageError: it cannot be written.
        """
        groups: dict[str, list[int]] = {}
        for at, rollout in enumerate(state["rollouts"]):
            groups.setdefault(rollout["prompt"], []).append(at)
        rest = {name: value for name, value in state.items() if name != "rollouts"}
        parts: list[dict[str, Any]] = [
            {"places": places, "rollouts": [state["rollouts"][at] for at in places]} for places in groups.values()
        ]
        with self._lock:
            try:
                for part in [*parts, {"count": len(state["rollouts"]), "rest": rest}]:
                    self._write(step, part)
            except OSError as error:
                raise StorageError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def _write(self, step: int, part: Mapping[str, Any]) -> None:
        if self._file is None:
            self.folder.mkdir(exist_ok=True)
            self._file = (self.folder / f"step-{step:06d}.jsonl").open("wb")
            sync(self.folder)
        held = io.BytesIO()
        torch.save(part, held)
        data = base64.b64encode(held.getvalue()).decode()
        line = {"step": step, "sha256": _digest(step, data), "data": data}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def read(self) -> dict[int, dict[str, Any]]:
        """step -> what `packed` gave of it, of all steps that are whole."""
        found: dict[int, dict[str, Any]] = {}
        for path in self._files():
            rollouts: dict[int, Any] = {}
            for step, part in _lines(path):
                if "rest" not in part:
                    rollouts |= zip(part["places"], part["rollouts"], strict=True)
                    continue
                if len(rollouts) == part["count"]:
                    found[step] = {**part["rest"], "rollouts": [rollouts[at] for at in sorted(rollouts)]}
                rollouts = {}
        return found

    def _files(self) -> list[Path]:
        """From the earliest step to the latest."""
        return sorted(path for path in self.folder.glob("step-*.jsonl") if re.fullmatch(r"step-\d{6,}", path.stem))

    def drop(self, step: int) -> None:
        """Let go of steps up to this one, and begin a new file; a file goes when all its steps do."""
        with self._lock:
            self._end()
            files = self._files()
            for path, following in pairwise(files):
                if int(following.stem.removeprefix("step-")) <= step + 1:
                    path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._end()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(step, part) of the lines of a file that are whole, up to the first that is not."""
    with path.open("rb") as file:
        for line in file:
            try:
                held = json.loads(line)
                step, data = int(held["step"]), held["data"]
                if held["sha256"] != _digest(step, data):
                    return
                part = torch.load(io.BytesIO(base64.b64decode(data)), map_location="cpu", weights_only=True)
            except (ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
                return
            yield step, part


def _digest(step: int, data: str) -> str:
    return hashlib.sha256(f"{step} {data}".encode()).hexdigest()
