"""Errors that a user can mend. The command line prints them without a traceback."""

from __future__ import annotations

import reprlib
from typing import Any

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 160, 160


class UsageError(ValueError):
    """Something asked for cannot be done as asked; the message says what, where, and what to do instead (status 2)."""


class EngineError(RuntimeError):
    """An engine outside the trainer failed in the middle of a run, which is saved and can be continued (status 3)."""


class StorageError(RuntimeError):
    """A run's folder cannot be written any more: the disk is full, or the folder is gone (status 3)."""


class Diverged(RuntimeError):
    """Loss, gradient or logits were not finite, so that a run cannot go on (status 3)."""


class EnvironmentsFailed(RuntimeError):
    """All episodes of several steps failed, so that nothing is left to learn from (status 3)."""


class Renamed(FutureWarning):
    """Something goes by another name than it was given by, which is still taken."""


def shown(value: Any, most: int | None = None) -> str:
    """A value on one line, as a message shows it: of any size and depth, even one that fails to say what it is.

    Args:
        most: characters of its whole text; by default its parts are shortened instead, so that its form is seen.
    """
    try:
        text = _short.repr(value) if most is None else repr(value)
    except Exception as error:
        text = f"<its repr fails: {type(error).__name__}>"
    text = " ".join(line.strip() for line in text.splitlines())
    return text if most is None or len(text) <= most else text[: most - 3] + "..."


def out_of_memory(error: BaseException) -> bool:
    """True if an error says that the memory of the processor or of the device did not suffice."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)
    )
