"""The driver's side of a member: a thread that reaches it, hears what it says, and reaches it again when it was lost.

Nothing here makes anyone wait: commands are put into a queue, and what is heard is handed on by the thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from cohort.engine.pool.messages import Beat, Command, Lost, Reply
from cohort.errors import EngineError, UsageError

# Seconds without a sign of life after which a member counts as lost.
SILENCE = 30.0
# Seconds between two tries to reach one, which double up to the longest.
PAUSE, LONGEST_PAUSE = 0.05, 5.0
# Seconds between two looks at whether there is something else to do.
LOOK = 0.1

Hear = Callable[[Reply], None]


class Over(Exception):
    """A member cannot be reached ever again."""


class Wire(Protocol):
    """A connection to a member, from when it is made until it breaks. Whatever raises EOFError, OSError or EngineError means
    that it is broken."""

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, in their order. Called by one thread, by another than `receive`."""
        ...

    def receive(self, seconds: float) -> Sequence[Reply]:
        """What the member has said, waiting so long for something; it may be nothing."""
        ...

    def close(self, *, kindly: bool) -> None:
        """Leave it; kindly: it may go on to its end by itself, otherwise it is ended where that can be done."""
        ...


class Link:
    """Reaches a member.

    Args:
        name: of the member, for messages and metrics.
        reach: makes a connection to it, starting it where that is needed, unless the event is set. It raises `Over` where
            that will never be possible again, UsageError where it must not be tried again, and EOFError, OSError or
            EngineError where it may.
        silence: seconds without a sign of life after which the member is lost; None for one that gives none.
    """

    def __init__(self, name: str, reach: Callable[[threading.Event], Wire], *, silence: float | None = SILENCE) -> None:
        self.name, self._reach, self.silence = name, reach, silence
        self._closing = threading.Event()
        self._out: SimpleQueue[Command | None] = SimpleQueue()
        self._broken = threading.Event()
        self._why = ""
        self._wire: Wire | None = None
        self._thread: threading.Thread | None = None

    def start(self, hear: Hear) -> None:
        """Begin to reach the member; `hear` is given all that it says, `Joined` and `Lost` too, by one thread."""
        self._thread = threading.Thread(target=self._live, args=(hear,), daemon=True, name=f"cohort-{self.name}")
        self._thread.start()

    def send(self, command: Command) -> None:
        """Have a command sent; it is lost with the member."""
        self._out.put(command)

    def break_off(self, why: str) -> None:
        """Take the member as lost."""
        self._why = why
        self._broken.set()

    def close(self, patience: float = 10.0) -> None:
        """Leave the member for good."""
        self._closing.set()
        self._out.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)

    def _live(self, hear: Hear) -> None:
        try:
            self._keep(hear)
        except Exception as error:  # nobody would know of the thread's end
            hear(Lost(f"{type(error).__name__}: {error}", final=True))
            raise

    def _keep(self, hear: Hear) -> None:
        """Reach the member whenever it is lost."""
        pause = PAUSE
        while not self._closing.is_set():
            try:
                wire = self._reach(self._closing)
            except Over as error:
                hear(Lost(str(error), final=True))
                return
            except UsageError as error:
                hear(Lost(str(error), error, final=True))
                return
            except (EOFError, OSError, EngineError) as error:
                hear(Lost(_said(error)))
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            began = time.monotonic()
            lost = self._talk(wire, hear)
            if lost is not None:
                hear(lost)
                if lost.final:
                    return
            # One that is lost again at once is not started over and over.
            pause = PAUSE if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            self._closing.wait(pause if lost is not None else 0.0)

    def _talk(self, wire: Wire, hear: Hear) -> Lost | None:
        """Talk until the member is lost, and say why; None if it is left."""
        self._out, self._why = SimpleQueue(), ""
        self._broken.clear()
        failed: list[str] = []
        writer = threading.Thread(
            target=self._write, args=(wire, self._out, failed), daemon=True, name=f"cohort-to-{self.name}"
        )
        writer.start()
        lost, heard = None, time.monotonic()
        while lost is None and not self._closing.is_set():
            try:
                replies = wire.receive(LOOK)
            except (EOFError, OSError, EngineError) as error:
                lost = Lost(_said(error))
                break
            for reply in replies:
                heard = time.monotonic()
                if isinstance(reply, Lost):
                    lost = reply
                elif not isinstance(reply, Beat):
                    hear(reply)
            if self._broken.is_set():
                lost = Lost(self._why)
            elif failed:
                lost = Lost(failed[0])
            elif self.silence is not None and time.monotonic() - heard > self.silence:
                lost = Lost(f"it gave no sign of life for {self.silence:.0f} s")
        self._out.put(None)
        writer.join(1.0 if lost is None else 0.0)
        with contextlib.suppress(EOFError, OSError, EngineError):
            wire.close(kindly=lost is None)
        return lost

    def _write(self, wire: Wire, out: SimpleQueue[Command | None], failed: list[str]) -> None:
        while True:
            commands = [out.get()]
            with contextlib.suppress(Empty):
                while True:
                    commands.append(out.get_nowait())
            given = [command for command in commands if command is not None]
            try:
                if given:
                    wire.send(given)
            except Exception as error:  # what cannot be pickled raises anything
                failed.append(_said(error))
                return
            if len(given) < len(commands):
                return


def _said(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return str(error) or "its connection ended"
    return str(error) or type(error).__name__
