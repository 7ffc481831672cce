"""Errors that a user can mend. The command line prints them without a traceback."""

from __future__ import annotations


class UsageError(ValueError):
    """Something asked for cannot be done as asked; the message says what, where, and what to do instead (status 2)."""


class EngineError(RuntimeError):
    """An engine outside the trainer failed in the middle of a run, which is saved and can be continued (status 3)."""


def out_of_memory(error: BaseException) -> bool:
    """True if an error says that the memory of the processor or of the device did not suffice."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)
    )
