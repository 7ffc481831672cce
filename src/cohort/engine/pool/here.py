"""Members of a pool in this process: a thread each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from cohort.engine.pool.host import EngineHost, serve
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import Command, Reply


class Queues:
    """A Wire and a Channel between two threads."""

    def __init__(self) -> None:
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._replies: SimpleQueue[Reply | None] = SimpleQueue()
        self.broken = threading.Event()

    # the pool's side

    def send(self, commands: Sequence[Command]) -> None:
        """See Wire."""
        for command in commands:
            self._commands.put(command)

    def replies(self, seconds: float) -> Sequence[Reply]:
        """See Wire.receive."""
        try:
            reply = self._replies.get(timeout=seconds)
        except Empty:
            return []
        if reply is None:
            raise EOFError("its thread ended")
        return [reply]

    def hang_up(self) -> None:
        """Both sides learn that there is no other any more."""
        self.broken.set()
        self._commands.put(None)
        self._replies.put(None)

    # the host's side

    def poll(self) -> bool:
        """See Channel."""
        return self.broken.is_set() or not self._commands.empty()

    def receive(self) -> Command | None:
        """See Channel."""
        return None if self.broken.is_set() else self._commands.get()

    def say(self, reply: Reply) -> None:
        """See Channel.send."""
        if self.broken.is_set():
            raise EOFError("the pool has left")
        self._replies.put(reply)


class _Channel:
    def __init__(self, queues: Queues) -> None:
        self.poll, self.receive, self.send = queues.poll, queues.receive, queues.say


class QueueWire:
    """A Wire to a host that draws in a thread of this process."""

    def __init__(self, queues: Queues, thread: threading.Thread) -> None:
        self._queues, self._thread = queues, thread

    def send(self, commands: Sequence[Command]) -> None:
        """See Wire."""
        self._queues.send(commands)

    def receive(self, seconds: float) -> Sequence[Reply]:
        """See Wire."""
        return self._queues.replies(seconds)

    def close(self, *, kindly: bool) -> None:
        """See Wire."""
        self._queues.hang_up()
        if kindly:
            self._thread.join(5.0)


def serve_queues(queues: Queues, make: Callable[[], EngineHost], name: str) -> threading.Thread:
    """A thread in which a host draws for the pool at the other end; see `serve`."""

    def live() -> None:
        with contextlib.suppress(Exception):  # the pool was told
            serve(_Channel(queues), make)
        queues.hang_up()

    thread = threading.Thread(target=live, daemon=True, name=f"cohort-host-{name}")
    thread.start()
    return thread


def here(name: str, make: Callable[[], EngineHost]) -> Link:
    """A member that draws in a thread of this process.

    Args:
        make: makes its host; called again after it failed.
    """

    def reach(closing: threading.Event) -> QueueWire:
        queues = Queues()
        return QueueWire(queues, serve_queues(queues, make, name))

    return Link(name, reach)
