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


def shown(value: Any) -> str:
    """A value as a message shows it, however long or deep it is."""
    return _short.repr(value)


def out_of_memory(error: BaseException) -> bool:
    """True if an error says that the memory of the processor or of the device did not suffice."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)
    )
