"""A run's folder: which it is, what in it is the run's own, and who writes into it.

Nothing else that stands in the folder is ever touched, and what an earlier attempt left there is moved aside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cohort.analysis.configuration import RENAMED, flat
from cohort.errors import StorageError, UsageError
from cohort.files import free_name
from cohort.rollouts.journal import JOURNAL
from cohort.training.checkpoint import damage, listed, newest
from cohort.training.config import TrainConfig
from cohort.training.reading import read_yaml

LOCK = ".lock"
CONFIG, METRICS, SUMMARY = "config.yaml", "metrics.jsonl", "summary.json"
# What judges have cost.
SPENT = "judges.json"
# What a run writes; the two by which a run is known come last, so that it still is when moving them was cut short.
OWN = (
    SUMMARY,
    "rollouts",
    "tensorboard",
    "wandb",
    "best",
    "final",
    "evaluation",
    "checkpoints",
    JOURNAL,
    "rewards.log",
    "environments.log",
    SPENT,
    METRICS,
    CONFIG,
)
# Keys that every configuration of a run has had.
MARKS = frozenset({"method", "model", "reward", "steps", "seed", "group_size", "checkpoint"})


def name_of_run(config: TrainConfig, model: str = "") -> str:
    """A folder name made of method and model, or another name of it, without a number."""
    parts = [config.method, Path(model or config.policy.model).name]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-")[:150]


def choose_folder(config: TrainConfig, resume: bool) -> Path:
    """The run's folder: the one asked for, or the next free number under runs/; to resume, the newest of that name."""
    if config.out is not None:
        return Path(config.out)
    stem = name_of_run(config)
    taken = _numbered(stem)
    if resume:
        # Of a run that has not been continued since its model got another name.
        before = [name_of_run(config, old) for old, new in RENAMED.items() if new == config.policy.model]
        for found in (taken, *map(_numbered, before)):
            if found:
                return found[max(found)]
    return Path("runs") / f"{stem}-{max(taken, default=0) + 1}"


def _numbered(stem: str) -> dict[int, Path]:
    """Number -> what stands under runs/ with that name and number."""
    matches = ((re.fullmatch(re.escape(stem) + "-([0-9]+)", path.name), path) for path in Path("runs").glob("*"))
    return {int(match[1]): path for match, path in matches if match}


def check_place(folder: Path, option: str = "--out") -> None:
    """A folder can stand there, and be written to.

    Raises:
        UsageError: it cannot; says what stands in the way.
    """
    try:
        for path in [folder, *folder.parents]:
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            here = path if path == folder else f"{folder}: {path}"
            if not path.exists():
                raise UsageError(f"{option} {here} is a link to {os.readlink(path)}, which does not exist")
            if not path.is_dir():
                raise UsageError(f"{option} {here} is a file; name a folder")
            if not os.access(path, os.W_OK | os.X_OK):
                raise UsageError(f"{option} {here} cannot be written to; name another folder")
            return
    except (OSError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{option} {str(folder)[:200]!r} cannot be the name of a folder: {error}") from error


def contents(folder: Path) -> list[str]:
    """Names of what stands in the folder, but for a lock."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be read: {error.strerror}") from error


def stored_config(folder: Path) -> dict[str, Any]:
    """What config.yaml of a run holds, by the keys' own names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        found = read_yaml((folder / CONFIG).read_text(encoding="utf-8"), CONFIG)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / CONFIG} cannot be read, so the run cannot be continued: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{folder / CONFIG} holds no keys, so the run cannot be continued")
    return flat(found)


def holds_run(folder: Path) -> bool:
    """True if a run wrote into the folder: its checkpoints, its resolved configuration, or metrics of steps."""
    if listed(folder / "checkpoints"):
        return True
    with contextlib.suppress(UsageError):
        if set(stored_config(folder)) >= MARKS:
            return True
    try:
        with (folder / METRICS).open("rb") as file:
            return "step" in json.loads(file.readline())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def check_free(folder: Path, resume: bool) -> bool:
    """True if a run stands in the folder that is to be continued.

    Raises:
        UsageError: the folder cannot be used, or holds something else.
    """
    check_place(folder)
    held = contents(folder)
    if not held:
        return False
    if holds_run(folder):
        if resume:
            return True
        raise UsageError(
            f"{folder} already holds something, a run: name another folder with --out, or continue it with --resume"
        )
    some = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
    raise UsageError(
        f"{folder} already holds something ({some}), but no run that --resume could continue: name another folder with --out"
    )


def find_checkpoint(folder: Path, log: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a run; None if it has none.

    Raises:
        UsageError: it has checkpoints, but every one is damaged.
    """
    root = folder / "checkpoints"
    found = newest(root, log)
    if found is None and (damaged := listed(root)):
        raise UsageError(
            f"none of the checkpoints in {root} is whole ({damaged[-1].name}: {damage(damaged[-1])}), so the run "
            "cannot be continued; nothing was changed. Name another folder with --out to begin anew, or move the damaged "
            "ones away to begin anew in this one"
        )
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another of its name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Claim:
    """The right to write into a folder, for one process at a time; a kill gives it back.

    Attributes:
        made: True if the folder was made for the run.

    Raises:
        UsageError: another process has it, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, made: bool = False) -> None:
        self.folder, self.made = folder, made
        self._path = folder / LOCK
        self._lock = FileLock(self._path)
        try:
            self._lock.acquire(timeout=0)
            self._path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            self._file, self._folder = _identity(self._path), _identity(folder)
        except Timeout:
            raise UsageError(
                f"{folder} is being written by {self._holder()}: wait until it ends, or name another folder with --out"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise UsageError(f"{folder} cannot be locked: {error}") from error

    def _holder(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip() or "another process"
        except (OSError, ValueError):
            return "another process"

    @property
    def stands(self) -> bool:
        """False if the folder was deleted, moved or replaced."""
        return self._locked or (self._folder == _identity(self.folder) and (self.folder / CONFIG).exists())

    @property
    def _locked(self) -> bool:
        return _identity(self._path) == self._file

    def release(self) -> None:
        # Under the lock: whoever opened the file before sees that it is gone, and makes a new one.
        if self._locked:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._lock.release()


def occupy(folder: Path, *, numbered: bool) -> tuple[Path, Claim]:
    """Make the folder of a new run and claim it; where it is `numbered` and another process has taken the name, the next one.

    Raises:
        UsageError: it cannot be made, or something stands in it by now.
    """
    while True:
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=not numbered)
            break
        except FileExistsError:
            if not numbered:
                raise UsageError(f"--out {folder} is a file; name a folder") from None
            stem, _, number = folder.name.rpartition("-")
            folder = folder.with_name(f"{stem}-{int(number) + 1}")
        except OSError as error:
            raise UsageError(f"--out {folder} cannot be made: {error.strerror}") from error
    claim = Claim(folder, made=made)
    if contents(folder):
        claim.release()
        raise UsageError(f"{folder} already holds something: name another folder with --out")
    return folder, claim


def _own(folder: Path) -> list[Path]:
    """What the run wrote, or was writing."""
    names = [each for name in OWN for each in (f".{name}.tmp", name)]
    replaced = sorted(folder.glob("config-until-step-*.yaml"))
    return [*replaced, *(folder / name for name in names if os.path.lexists(folder / name))]


def set_aside(folder: Path) -> Path | None:
    """Move what an attempt left in the folder into attempt-1/ (or the next number); None if it left nothing."""
    own = _own(folder)
    if not own:
        return None
    number = 1
    while os.path.lexists(folder / f"attempt-{number}"):
        number += 1
    aside = folder / f"attempt-{number}"
    aside.mkdir()
    for path in own:
        path.rename(aside / path.name)
    return aside


def forget(claim: Claim) -> None:
    """Remove what this run has just written, and its folder if it made that and nothing else stands in it."""
    for path in _own(claim.folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if claim.made and not contents(claim.folder):
        claim.release()
        with contextlib.suppress(OSError):
            claim.folder.rmdir()


def rescue(claim: Claim, config: TrainConfig) -> Path:
    """The folder to save to when a run ends early: the run's own; made again if it was deleted; one next to it if another
    process has taken its place."""
    folder = claim.folder
    if claim.stands:
        return folder
    if folder.exists():
        folder = free_name(folder.parent, f"{folder.name}-rescued")
    folder.mkdir(parents=True, exist_ok=True)
    config.model_copy(update={"out": str(folder)}).save(folder / CONFIG)
    return folder


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Say of what fails inside that the folder could not be written.

    Raises:
        StorageError: it failed.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not folder.exists():
            raise StorageError(f"{folder} is gone: it was deleted or moved while the run wrote into it") from error
        why = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).split("\n")[0]
        if shutil.disk_usage(folder).free < 2**20:
            why = f"the disk is full ({why})"
        # Where something stands in the way, it is to be known what; a move is stopped by what stands at its end.
        stopped = getattr(error, "filename2", None) or getattr(error, "filename", None) or folder
        raise StorageError(f"{stopped} cannot be written: {why}") from error
