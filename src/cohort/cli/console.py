"""What commands print, and where."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from rich.console import Console

from cohort.errors import UsageError

err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line on standard error, as it is."""
    # Whoever read on may be gone: a closed terminal, a pipe (which rich ends the process for).
    with contextlib.suppress(OSError, ValueError, SystemExit):
        err.print(text, markup=False)


def printed(width: int = 120) -> Console:
    """Standard output, with room for tables where it is no terminal."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=width)


def check_file(path: Path, option: str) -> None:
    """A file can be written there."""
    try:
        right = not path.is_dir() and path.resolve().parent.is_dir()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{option} {str(path)[:200]!r} cannot be the name of a file: {error}") from error
    if not right:
        raise UsageError(f"{option} {path}: name a file in a folder that exists")


def free(folder: Path) -> None:
    """Nothing stands where a model is to be written."""
    from cohort.training.folder import check_place

    check_place(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} already holds something: name another folder with --out")
