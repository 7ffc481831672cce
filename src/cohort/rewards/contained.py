"""Functions of the user's in the process of the run: they end in time, and do not end the process."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds after which what swallowed the first notice is told again.
AGAIN = 1.0


class Late(BaseException):
    """The time is up. No Exception, so that a function that tries again whatever happens does not catch it.

    Attributes:
        stack: where the function was, as text; empty where the traceback says so.
    """

    stack: str = ""


def in_time(seconds: float, call: Callable[[], T]) -> T:
    """What a function gives.

    In the main thread the system's alarm ends it, also where it waits for a server. In another it is called in a thread of its
    own, which is given up with what it waits for.

    Raises:
        Late: it has not ended when the time is up.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        with _alarm(seconds):
            return call()
    done: Future[T] = Future()

    def answer() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # whatever it is, whoever waits raises it
            done.set_exception(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(answer,), name="judge", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done.done():
        late, frame = Late(), sys._current_frames().get(thread.ident or 0)
        late.stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        raise late
    return done.result()


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise Late in what runs inside, in the main thread, once the time is up."""

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
