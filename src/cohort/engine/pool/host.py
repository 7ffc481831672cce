"""An engine with weights of its own, wherever it lives: what a member of a pool is, seen from its own side.

The weights of a version are taken over when something is to be drawn with them, and not before. So a host that has just
started, one that was started again and one that lags are the same case.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cohort.engine.base import Engine, Sampling, Session
from cohort.engine.pool.messages import (
    Beat,
    Close,
    Command,
    Done,
    Drop,
    End,
    Failed,
    Forget,
    Joined,
    Loaded,
    Lost,
    Offer,
    Open,
    Reply,
    Submit,
)
from cohort.errors import Diverged, EngineError, UsageError
from cohort.types import Request

# Seconds between two signs of life.
BEAT = 2.0
# What a request fails with wherever it is drawn.
WHEREVER = (UsageError, Diverged)


@dataclass
class _Hosted:
    """A session of the pool: sessions of the engine, of which all but the last were told that nothing more would come.

    Attributes:
        queue: tickets and requests that the engine has not been given, since other weights were drawn with.
        ended: the last of the engine's sessions, if any, takes nothing more; ending: it will not when `queue` is empty.
        tickets: by part, its numbers -> tickets; places: ticket -> part and number.
    """

    sampling: Sampling
    version: int
    parts: list[Session] = field(default_factory=list)
    queue: list[tuple[int, Request]] = field(default_factory=list)
    ended: bool = True
    ending: bool = False
    tickets: list[dict[int, int]] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.queue) + self.drawing

    @property
    def drawing(self) -> int:
        return sum(part.waiting for part in self.parts)

    def hand_over(self, engine: Engine) -> None:
        """Give the engine what has come in."""
        for ticket, request in self.queue:
            if self.ended:
                self.parts.append(engine.session(self.sampling))
                self.tickets.append({})
                self.ended = False
            number = self.parts[-1].submit(request)
            self.tickets[-1][number] = ticket
            self.places[ticket] = len(self.parts) - 1, number
        self.queue.clear()
        if self.ending and not self.ended:
            self.parts[-1].end()
            self.ended, self.ending = True, False


class EngineHost:
    """Draws for a pool.

    Args:
        engine: draws with the weights that `take_over` was given last.
        take_over: has the engine's weights be those of a version, as they were offered; gives the bytes that this moved.

    Attributes:
        version: of the weights that the engine has; None before the first.
    """

    def __init__(self, engine: Engine, take_over: Callable[[Any], int]) -> None:
        self.engine, self.take_over = engine, take_over
        self.version: int | None = None
        self._offers: dict[int, Any] = {}
        self._sessions: dict[int, _Hosted] = {}

    @property
    def waiting(self) -> int:
        """Requests that were submitted and not taken."""
        return sum(session.waiting for session in self._sessions.values())

    def do(self, command: Command) -> None:
        """Do what a pool says. What belongs to a session that is not open is left undone."""
        match command:
            case Offer():
                self.load(command.version, command.weights)
            case Drop():
                self._offers.pop(command.version, None)
            case Open():
                self.open(command.session, command.sampling, command.version)
            case Submit():
                self.submit(command.session, command.ticket, command.request)
            case Forget():
                self.forget(command.session, command.ticket)
            case End():
                self.end(command.session)
            case Close():
                self.close(command.session)

    def load(self, version: int, weights: Any) -> None:
        """Know where the weights of a version are, for when they are drawn with."""
        self._offers[version] = weights

    def open(self, session: int, sampling: Sampling, version: int) -> None:
        """Begin a session that draws with the weights of a version."""
        self._sessions[session] = _Hosted(sampling, version)

    def submit(self, session: int, ticket: int, request: Request) -> None:
        """Have a request drawn."""
        if session in self._sessions:
            self._sessions[session].queue.append((ticket, request))

    def forget(self, session: int, ticket: int) -> None:
        """No request will go on from this one."""
        hosted = self._sessions.get(session)
        if hosted is not None and ticket in hosted.places:
            part, number = hosted.places.pop(ticket)
            hosted.parts[part].forget(number)

    def end(self, session: int) -> None:
        """Nothing more is expected in a session; what comes all the same is drawn apart."""
        if session in self._sessions:
            self._sessions[session].ending = True

    def close(self, session: int | None = None) -> None:
        """Give up a session; None: all of them, and the engine."""
        gone = list(self._sessions) if session is None else [session]
        for hosted in [self._sessions.pop(each) for each in gone if each in self._sessions]:
            for part in hosted.parts:
                part.close()
        if session is None:
            self.engine.close()

    def give_up(self) -> None:
        """Give up all sessions."""
        for session in list(self._sessions):
            self.close(session)

    def take(self, stop: Callable[[], bool]) -> list[Reply]:
        """What is drawn next, and what had to be loaded for it; no completion as soon as `stop` says so.

        Raises:
            LookupError: nothing is waiting.
            UsageError: the engine cannot draw a request.
            EngineError: it failed, or the weights cannot be had.
        """
        ready = [hosted for hosted in self._sessions.values() if hosted.waiting]
        if not ready:
            raise LookupError("no request is waiting to be drawn")
        # Other weights are loaded when nothing is drawn with these any more.
        chosen = max(ready, key=lambda each: (each.version == self.version, each.drawing))
        out = self._have(chosen.version)
        for hosted in ready:
            if hosted.version == self.version:
                hosted.hand_over(self.engine)
        part = max(range(len(chosen.parts)), key=lambda each: chosen.parts[each].waiting)
        found = chosen.parts[part].next_unless(stop)
        return out if found is None else [*out, Done(chosen.tickets[part].pop(found[0]), found[1])]

    def _have(self, version: int) -> list[Reply]:
        if self.version == version:
            return []
        if version not in self._offers:
            raise EngineError(f"weights of version {version} are to be drawn with, and were not offered")
        began = time.perf_counter()
        # What is taken over in part is no version.
        self.version = None
        moved = self.take_over(self._offers[version])
        self.engine.sync()
        self.version = version
        return [Loaded(version, time.perf_counter() - began, moved)]


class Channel(Protocol):
    """A host's way to its pool."""

    def poll(self) -> bool:
        """True if something has come, or the pool is gone."""
        ...

    def receive(self) -> Command | None:
        """What comes next; None if the pool wants no more.

        Raises:
            EOFError, OSError: the pool is gone.
        """
        ...

    def send(self, reply: Reply) -> None:
        """Say something to the pool. Called by several threads."""
        ...


def serve(channel: Channel, make: Callable[[], EngineHost]) -> None:
    """Make a host and do what its pool says, until that wants no more or is gone.

    Raises:
        Exception: of any kind: the host cannot go on. The pool was told.
    """
    over = threading.Event()
    threading.Thread(target=_beat, args=(channel, over), daemon=True, name="cohort-beat").start()
    host: EngineHost | None = None
    try:
        host = make()
        channel.send(Joined())
        _serve(channel, host)
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        refused = error if isinstance(error, WHEREVER) else None
        with contextlib.suppress(EOFError, OSError):
            channel.send(Lost(str(error) if isinstance(error, EngineError) else _described(error), refused))
        raise
    finally:
        over.set()
        if host is not None:
            host.close()


def _serve(channel: Channel, host: EngineHost) -> None:
    while True:
        while not host.waiting or channel.poll():
            command = channel.receive()
            if command is None:
                return
            host.do(command)
        try:
            replies = host.take(channel.poll)
        except WHEREVER as error:
            channel.send(Failed(error))
            host.give_up()
            continue
        for reply in replies:
            channel.send(reply)


def _beat(channel: Channel, over: threading.Event) -> None:
    with contextlib.suppress(EOFError, OSError):
        while not over.wait(BEAT):
            channel.send(Beat())


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
