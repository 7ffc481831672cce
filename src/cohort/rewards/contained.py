"""Functions of the user's in the process of the run: they end in time, and do not end the process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

# Seconds after which what swallowed the first notice is told again.
AGAIN = 1.0


class Late(BaseException):
    """The time is up. No Exception, so that a function that tries again whatever happens does not catch it."""


@contextlib.contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """Raise Late in what runs inside once the time is up, as the system's alarm: it also ends waiting for a server.

    The main thread alone can be told; in another there is no limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: Any) -> None:
        raise Late

    before, begun = signal.signal(signal.SIGALRM, late), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 1e-3), interval)


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Have `os._exit` raise SystemExit inside, where it would end this process without a word.

    Children that are forked there, and other threads, end as they mean to.
    """
    leave, pid, thread = os._exit, os.getpid(), threading.get_ident()

    def stay(status: int) -> Any:
        if (os.getpid(), threading.get_ident()) != (pid, thread):
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = stay
    try:
        yield
    finally:
        os._exit = leave
