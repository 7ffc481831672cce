"""Ending a run from outside: the step is finished and saved, whoever asks for the end."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# A terminal's Ctrl-C; the end that Slurm, Kubernetes, systemd and `docker stop` announce; a terminal that was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds within which a second signal is the same request: some senders reach a process directly and by its group.
SAME = 0.2


class Interrupt:
    """The first signal asks for an end after the step, the second ends at once (by KeyboardInterrupt).

    Attributes:
        asked: True from the first signal on.
    """

    def __init__(self, log: Callable[[str], None], hung_up: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self._log, self._hung_up = log, hung_up
        self._at = 0.0
        self._shields = 0
        self._late = False

    def _handle(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            # Nobody reads on, and writing to a terminal that is gone fails.
            self._hung_up()
        now = time.monotonic()
        if not self.asked:
            self.asked, self._at = True, now
            self._tell("stopping after this step (press Ctrl-C again to stop at once)")
        elif now - self._at < SAME or number == signal.SIGHUP:
            return
        elif self._shields and not self._late:
            self._late = True
            self._tell("stopping as soon as what is being written is whole")
        else:
            raise KeyboardInterrupt

    def _tell(self, text: str) -> None:
        # In a handler: it may have come in the middle of another line.
        with contextlib.suppress(Exception):
            self._log(text)

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Put off a second signal (not a third) until what is done here is whole."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._late and not self._shields:
            self._late = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals; they go back to whoever had them."""
        # Under nohup a closed terminal is nothing to end for.
        with _handled(SIGNALS, self._handle, unless_ignored=(signal.SIGHUP,)):
            yield


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End what is done here by KeyboardInterrupt, whoever asks for the end."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # An interrupt does so by itself.
    with _handled(SIGNALS[1:], end, unless_ignored=SIGNALS[1:]):
        yield


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Have signals that come meanwhile handled when what is done here is whole."""
    came: list[int] = []
    try:
        with _handled(SIGNALS, lambda number, _: came.append(number), unless_ignored=SIGNALS):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _handled(
    numbers: Sequence[signal.Signals],
    handler: Callable[[int, FrameType | None], None],
    *,
    unless_ignored: Sequence[signal.Signals],
) -> Iterator[None]:
    """Have signals handled; in another than the main thread they are left to whoever has them."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if number not in unless_ignored or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
