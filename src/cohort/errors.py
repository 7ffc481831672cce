"""Errors that a user can mend. The command line prints them without a traceback and exits with status 2."""

from __future__ import annotations


class UsageError(ValueError):
    """Something asked for cannot be done as asked; the message says what, where, and what to do instead."""
