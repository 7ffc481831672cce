"""Processes with environments, seen from the run: called and answered within a time limit, replaced when they die or hang."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from cohort.environments.base import EnvironmentFailed, Gone, Late
from cohort.environments.spec import EnvironmentSpec, Offer
from cohort.errors import UsageError, shown
from cohort.rewards.child import LOADING, LOOK, Child, status
from cohort.rewards.frames import HEADER, CorruptError, content, frame, length
from cohort.rewards.printed import Printed
from cohort.rewards.sending import packed

# Seconds that a process has to say where an environment is that did not answer in time.
PATIENCE = 5.0
# Processes where the configuration does not say how many.
PROCESSES = 4


class Answer(Future[Any]):
    """What a call will have come to; it can be awaited."""

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self).__await__()


@dataclass(eq=False)
class Call:
    """A call of a process.

    Attributes:
        limit: seconds that it may take, from when the process has loaded the environment on.
        read: makes what it gives of what was sent.
        deadline: on the clock of `time.monotonic`; None while the process loads.
        to: number of the environment; 0 for none.
    """

    answer: Answer
    limit: float
    to: int = 0
    read: Callable[[Any], Any] | None = None
    deadline: float | None = None


@dataclass(eq=False)
class Host(Child):
    """A process with environments.

    Attributes:
        calls: number -> call that is not answered.
        living: numbers of the environments that live here.
        retired: nothing new comes here: an environment hangs in it.
        dead: why it is gone; empty while it is not.
    """

    printed: Printed = field(default_factory=Printed)
    out: deque[memoryview] = field(default_factory=deque)
    got: bytearray = field(default_factory=bytearray)
    calls: dict[int, Call] = field(default_factory=dict)
    living: set[int] = field(default_factory=set)
    ready: bool = False
    retired: bool = False
    dead: str = ""

    def __post_init__(self) -> None:
        super().__init__("cohort.environments.worker", self.printed)


class Pool:
    """The processes in which the environments of a run live.

    Args:
        spec: of the environments.
        timeout: seconds that a reset or a step may take.
        processes: most processes; None: as many as the machine has processors, and at most PROCESSES.

    Raises:
        UsageError: the environment was given from Python and cannot be sent to another process.
    """

    def __init__(self, spec: EnvironmentSpec, *, timeout: float, processes: int | None = None) -> None:
        self.spec, self.timeout = spec, timeout
        self.processes = processes or min(PROCESSES, os.cpu_count() or 1)
        self.hosts: list[Host] = []
        self._load = {"do": "load", "path": sys.path, "spec": _sent(spec)}
        self._numbers, self._homes = itertools.count(1), itertools.count(1)
        self._said: list[Printed] = []
        self._lock = threading.RLock()
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    # what a run asks ------------------------------------------------------------------------------------------------

    def start(self) -> Offer:
        """Load the environment in a first process and try whether one can be made; what it says of itself.

        Raises:
            UsageError: it cannot be loaded or made.
        """
        with self._lock:
            host, loading = self._begin()
        self._told(loading)
        with self._lock:
            trying = self._call(host, {"do": "check"}, LOADING)
        offer = self._told(trying)
        return Offer(**{**offer, "components": tuple(offer["components"])})

    def rows(self, *, held_out: bool = False) -> list[dict[str, Any]] | None:
        """Rows of the environment's own, to train on or held out; None if it has none.

        Raises:
            UsageError: it cannot give them.
        """
        with self._lock:
            asked = self._call(self._least(), {"do": "rows", "held_out": held_out}, LOADING)
        found: list[dict[str, Any]] | None = self._told(asked)
        return found

    def printed(self) -> str:
        """What environments printed since the last call."""
        with self._lock:
            said, self._said = self._said, [host.printed for host in self.hosts]
        return "".join(each.take() for each in said)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._closed = True
            hosts, self.hosts = self.hosts, []
            for host in hosts:
                self._lose(host, "the run is over")
            self._nudge()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            self._thread = None

    def _told(self, answer: Answer) -> Any:
        try:
            return answer.result()
        except EnvironmentFailed as error:
            said = self._said[-1].tail() if self._said else ""
            self.close()
            problem = str(error) if str(error).startswith("environment ") else f"{self.spec.name}: {error}"
            raise UsageError(problem + (f"; the last that it said:\n{said}" if said else "")) from None

    # environments ---------------------------------------------------------------------------------------------------

    def place(self) -> tuple[Host, int]:
        """The process for a new environment, and the environment's number.

        Raises:
            Gone: the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise Gone("the run is over")
            host, number = self._least(), next(self._homes)
            host.living.add(number)
            return host, number

    def ask(
        self, host: Host, to: int, what: str, given: bytes = b"", read: Callable[[Any], Any] | None = None
    ) -> Answer:
        """Have a process call a method of an environment.

        Args:
            given: the arguments, pickled; read: makes what it gives of what was sent.
        """
        with self._lock:
            return self._call(host, {"do": what, "to": to, "given": given}, self.timeout, to, read)

    def leave(self, host: Host, number: int, *, hangs: bool = False) -> None:
        """An environment is gone, or never will be if it `hangs`: then the process ends with the last of the others."""
        with self._lock:
            host.living.discard(number)
            host.retired |= hangs
            if host.retired and not host.living and not host.dead:
                self._lose(host, "it was replaced")

    def _least(self) -> Host:
        """The process with the fewest environments; a new one where all have some and there may be more."""
        open_ = [host for host in self.hosts if not host.retired]
        if not open_ or (len(open_) < self.processes and all(host.living for host in open_)):
            return self._begin()[0]
        return min(open_, key=lambda host: len(host.living))

    # processes ------------------------------------------------------------------------------------------------------

    def _begin(self) -> tuple[Host, Answer]:
        """Start a process; what comes of loading the environment in it."""
        if self._thread is None:
            self._wake = os.pipe()
            os.set_blocking(self._wake[0], False)
            self._thread = threading.Thread(
                target=self._serve, args=self._wake, name="environment processes", daemon=True
            )
            self._thread.start()
        host = Host()
        host.spawn()
        assert host.process is not None
        assert host.process.stdin is not None
        os.set_blocking(host.process.stdin.fileno(), False)
        self.hosts.append(host)
        self._said.append(host.printed)
        loading = self._call(host, self._load, max(self.timeout, LOADING))
        next(iter(host.calls.values())).deadline = time.monotonic() + max(self.timeout, LOADING)
        loading.add_done_callback(lambda done: self._loaded(host, done))
        return host, loading

    def _loaded(self, host: Host, loading: Future[Any]) -> None:
        with self._lock:
            if loading.exception() is not None:
                self._lose(host, f"its process could not be started: {loading.exception()}")
                return
            host.ready = True
            for call in host.calls.values():
                call.deadline = time.monotonic() + call.limit
            self._nudge()

    def _call(
        self, host: Host, message: dict[str, Any], limit: float, to: int = 0, read: Callable[[Any], Any] | None = None
    ) -> Answer:
        answer, number = Answer(), next(self._numbers)
        if host.dead:
            answer.set_exception(Gone(host.dead))
            return answer
        host.calls[number] = Call(answer, limit, to, read, time.monotonic() + limit if host.ready else None)
        host.out.append(memoryview(frame(pickle.dumps({**message, "number": number}))))
        self._nudge()
        return answer

    def _lose(self, host: Host, why: str) -> None:
        """End a process; its environments fail."""
        if host.dead:
            return
        host.dead = why
        if host in self.hosts:
            self.hosts.remove(host)
        host.close()
        calls, host.calls = list(host.calls.values()), {}
        for call in calls:
            call.answer.set_exception(Gone(why))
        self._nudge()

    def _nudge(self) -> None:
        if self._wake is not None:
            with contextlib.suppress(OSError):
                os.write(self._wake[1], b"x")

    # messages -------------------------------------------------------------------------------------------------------

    def _serve(self, wake: int, _: int) -> None:
        """Send and receive, and look at the clock, until the pool is closed."""
        while True:
            with self._lock:
                if self._closed:
                    break
                hosts = list(self.hosts)
                due = [call.deadline for host in hosts for call in host.calls.values() if call.deadline is not None]
                ready = selectors.DefaultSelector()
                ready.register(wake, selectors.EVENT_READ)
                for host in hosts:
                    assert host.process is not None
                    assert host.process.stdin is not None
                    assert host.process.stdout is not None
                    ready.register(host.process.stdout, selectors.EVENT_READ, (self._receive, host))
                    if host.out:
                        ready.register(host.process.stdin, selectors.EVENT_WRITE, (self._send, host))
            left = max(0.0, min(due) - time.monotonic()) if due else None
            with ready:
                events = ready.select(None if left is None else min(left, LOOK))
            for key, _ in events:
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 65536)
                    continue
                act, host = key.data
                with self._lock:
                    if not host.dead:
                        act(host)
            with self._lock:
                self._look(hosts)
        with self._lock:
            ends, self._wake = self._wake or (), None
            for end in ends:
                os.close(end)

    def _send(self, host: Host) -> None:
        assert host.process is not None
        assert host.process.stdin is not None
        try:
            while host.out:
                sent = os.write(host.process.stdin.fileno(), host.out[0][:65536])
                host.out[0] = host.out[0][sent:]
                if not host.out[0]:
                    host.out.popleft()
        except BlockingIOError:
            return
        except OSError:
            # What became of it shows in its answers, or in its end.
            host.out.clear()

    def _receive(self, host: Host) -> None:
        assert host.process is not None
        assert host.process.stdout is not None
        piece = os.read(host.process.stdout.fileno(), 1 << 18)
        if not piece:
            self._ended(host)
            return
        host.got += piece
        try:
            while len(host.got) >= HEADER.size:
                head = bytes(host.got[: HEADER.size])
                end = HEADER.size + length(head)
                if len(host.got) < end:
                    return
                data = content(head, bytes(host.got[HEADER.size : end]))
                del host.got[:end]
                number, _, reply = data.partition(b" ")
                self._answered(host, int(number), json.loads(reply))
        except (CorruptError, ValueError) as error:
            self._lose(host, f"what its process answered cannot be read ({error}), so it was ended")

    def _answered(self, host: Host, number: int, reply: dict[str, Any]) -> None:
        call = host.calls.pop(number, None)
        if call is None:  # it comes too late
            return
        if "error" in reply:
            call.answer.set_exception(EnvironmentFailed(reply["error"]))
        else:
            call.answer.set_result(reply["value"] if call.read is None else call.read(reply["value"]))

    def _ended(self, host: Host) -> None:
        said = host.printed.tail(300)
        code = host.stop()
        self._lose(host, f"its process died ({status(code)})" + (f", saying last: {said}" if said else ""))

    def _look(self, hosts: list[Host]) -> None:
        """Give up calls whose time is up, and processes that are gone."""
        now = time.monotonic()
        for host in hosts:
            if host.dead:
                continue
            if host.calls and host.process is not None and host.process.poll() is not None:
                self._ended(host)
                continue
            for number, call in list(host.calls.items()):
                # Where one ends the process, none of the others is open any more.
                if number in host.calls and call.deadline is not None and call.deadline <= now:
                    del host.calls[number]
                    self._late(host, call)

    def _late(self, host: Host, call: Call) -> None:
        """A call's time is up: ask where it is, and end a process that does not answer that either."""
        if not call.to or not host.ready:
            call.answer.set_exception(Late(f"no answer within {call.limit:g} s"))
            self._lose(host, "its process did not answer any more, and was ended")
            return
        host.retired = True
        late = f"no answer within {call.limit:g} s (environment_timeout)"
        asked = self._call(host, {"do": "where", "to": call.to}, PATIENCE)

        def say(done: Future[Any]) -> None:
            where = "" if done.exception() is not None else done.result()
            call.answer.set_exception(Late(f"{late}; it is in {where}" if where else late))

        asked.add_done_callback(say)


def _sent(spec: EnvironmentSpec) -> bytes:
    """What was asked for, for another process.

    Raises:
        UsageError: what was given from Python cannot be sent.
    """
    try:
        return packed(spec) if _from_python(spec) else pickle.dumps(spec)
    except Exception as error:
        raise UsageError(
            f"{spec.name}: environments live in processes of their own, but it holds something that cannot be sent there "
            f"({type(error).__name__}: {shown(str(error), 200)[1:-1]}): make that when the environment is made, or write the "
            "class into a file of its own and name it as path/to/file.py:Class"
        ) from error


def _from_python(spec: EnvironmentSpec) -> bool:
    """True if something of it has no text."""
    own = spec.given is not None or not all(isinstance(tool, str) for tool in spec.tools)
    return own or any(map(_from_python, spec.several.values()))
