"""Writing files so that a kill at any moment leaves the old or the new, and never half of one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cohort.errors import UsageError


def sync(path: Path) -> None:
    """Have a file or folder reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Write a file under a temporary name and rename it into place; what is no file, as /dev/stdout, is written to as it is.

    Args:
        durable: wait until it has reached the disk, so that a power cut does not leave it empty; a kill never does.
    """
    if path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")) or (path.exists() and not path.is_file()):
        # A file that is put in its place would be in the way of everybody.
        write(path)
        return
    aside = path.with_name(f".{path.name}.tmp")
    write(aside)
    if durable:
        sync(aside)
    aside.replace(path)


def save_into(folder: Path, save: Callable[[Path], None]) -> None:
    """Write a model's files aside and move each into place; whatever else stands in the folder stays."""
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.exists():
        shutil.rmtree(aside)
    save(aside)
    if not folder.exists():
        aside.rename(folder)
        return
    for path in sorted(p for p in aside.rglob("*") if p.is_file()):
        place = folder / path.relative_to(aside)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    shutil.rmtree(aside)


def save_new(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a new folder aside and rename it into place, where nothing (or an empty folder) may stand.

    Raises:
        UsageError: it cannot be written, or something stands there by now.
    """
    aside = folder.with_name(f".{folder.name}-{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        save(aside)
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_name(parent: Path, name: str) -> Path:
    """The name, or the first of NAME-2, NAME-3, ... that nothing has yet."""
    path, number = parent / name, 2
    while os.path.lexists(path):
        path, number = parent / f"{name}-{number}", number + 1
    return path
