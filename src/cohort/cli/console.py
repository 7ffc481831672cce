"""What commands print, and where."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from cohort.errors import Renamed, UsageError

err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def log(text: str) -> None:
    """A line on standard error, as it is."""
    # Whoever read on may be gone: a closed terminal, a pipe (which rich ends the process for).
    with contextlib.suppress(OSError, ValueError, SystemExit):
        err.print(text, markup=False)


@contextlib.contextmanager
def renamings_said() -> Iterator[None]:
    """Say in a line, once, what goes by another name than it was given by."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", Renamed)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **further: Any) -> None:
            if issubclass(category, Renamed):
                log(f"cohort: {message}")
            else:
                usual(message, category, *where, **further)

        warnings.showwarning = show
        yield


def printed(width: int = 120) -> Console:
    """Standard output, with room for tables where it is no terminal."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else width)


def check_file(path: Path, option: str) -> None:
    """A file can be written there, and what stands there is none of the user's: only an older one of the same kind is
    replaced."""
    try:
        right = not path.is_dir() and path.resolve().parent.is_dir()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{option} {str(path)[:200]!r} cannot be the name of a file: {error}") from error
    if not right:
        raise UsageError(f"{option} {path}: name a file in a folder that exists")
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        first = None
    if not isinstance(first, dict) or not {"sample", "reward"} <= set(first):
        raise UsageError(
            f"{option} {path}: there is a file that something else wrote; name another one, or move it away"
        )


def free(folder: Path) -> None:
    """Nothing stands where a model is to be written."""
    from cohort.training.folder import check_place, contents

    check_place(folder)
    if contents(folder):
        raise UsageError(f"{folder} already holds something: name another folder with --out")
