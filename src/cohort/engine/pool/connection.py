"""Members of a pool at the other end of a `multiprocessing.connection`: ranks, and processes of this machine.

in the process that draws          serve_connection(connection, make_host)
in the driver                      Link(name, reach), where `reach` gives a `ConnectionWire`
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.host import EngineHost, serve
from cohort.engine.pool.link import Link, Over
from cohort.engine.pool.messages import Command, Reply
from cohort.errors import EngineError, UsageError

# Seconds that a process may take to start and say that it is there; what it loads comes after that.
STARTING = 120.0
# Seconds that one may take to end.
ENDING = 5.0


class ConnectionChannel:
    """A host's Channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def poll(self) -> bool:
        """See Channel."""
        return self._connection.poll()

    def receive(self) -> Command | None:
        """See Channel."""
        command: Command | None = self._connection.recv()
        return command

    def send(self, reply: Reply) -> None:
        """See Channel."""
        with self._lock:
            self._connection.send(reply)


def serve_connection(connection: Connection, make: Callable[[], EngineHost]) -> None:
    """Draw for the pool at the other end until it wants no more or is gone; see `serve`."""
    with connection:
        serve(ConnectionChannel(connection), make)


class ConnectionWire:
    """A link's Wire.

    Args:
        ending: what else there is to do when the connection is left; it is told whether that is kindly.
    """

    def __init__(self, connection: Connection, ending: Callable[[bool], None] = lambda kindly: None) -> None:
        self._connection, self._ending = connection, ending

    def send(self, commands: Sequence[Command]) -> None:
        """See Wire."""
        for command in commands:
            self._connection.send(command)

    def receive(self, seconds: float) -> Sequence[Reply]:
        """See Wire."""
        if not self._connection.poll(seconds):
            return []
        try:
            return [self._connection.recv()]
        except (pickle.UnpicklingError, ValueError, AttributeError, ImportError) as error:
            raise EngineError(f"what it said cannot be read: {error}") from error

    def close(self, *, kindly: bool) -> None:
        """See Wire."""
        with contextlib.suppress(OSError):
            if kindly:
                self._connection.send(None)
        self._ending(kindly)
        self._connection.close()


def connected(name: str, connection: Connection) -> Link:
    """A member at the other end of a connection that is there, such as a rank; once lost it does not come back."""
    left = [connection]

    def reach(closing: threading.Event) -> ConnectionWire:
        if not left:
            raise Over("its connection ended")
        return ConnectionWire(left.pop())

    return Link(name, reach)


def process(name: str, blueprint: Blueprint) -> Link:
    """A member in a process of its own on this machine, which is started, and started again when it ends."""
    return Link(name, lambda closing: _started(blueprint, closing))


def _started(blueprint: Blueprint, closing: threading.Event) -> ConnectionWire:
    key = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="cohort-") as folder:
        address = str(Path(folder) / "socket")
        with Listener(address, "AF_UNIX", authkey=key) as listener:
            worker = subprocess.Popen(
                [sys.executable, "-m", "cohort.engine.pool.connection", address],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # A signal of the terminal is the driver's to answer.
                start_new_session=True,
            )
            assert worker.stdin is not None
            said = _Said(worker)
            try:
                worker.stdin.write(key)
                worker.stdin.close()
                connection = _accepted(listener, worker, closing)
                connection.send(blueprint)
            except BaseException as error:
                worker.kill()
                worker.wait()
                if not isinstance(error, (OSError, EOFError)):
                    raise
                raise EngineError(f"its process could not be started: {error}; {said.end()}") from error

    def ending(kindly: bool) -> None:
        try:
            worker.wait(ENDING if kindly else 0.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

    return _ProcessWire(connection, worker, said, ending)


class _ProcessWire(ConnectionWire):
    def __init__(
        self, connection: Connection, worker: subprocess.Popen[bytes], said: _Said, ending: Callable[[bool], None]
    ) -> None:
        super().__init__(connection, ending)
        self.worker, self._said = worker, said

    def receive(self, seconds: float) -> Sequence[Reply]:
        """See Wire."""
        try:
            return super().receive(seconds)
        except (EOFError, ConnectionError) as error:
            code = self._code()
            raise EOFError(f"its process {self.worker.pid} {code}; {self._said.end()}") from error

    def _code(self) -> str:
        try:
            code = self.worker.wait(ENDING)
        except subprocess.TimeoutExpired:
            return "ended its connection"
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


class _Said:
    """The last that a process wrote."""

    def __init__(self, worker: subprocess.Popen[bytes], most: int = 2000) -> None:
        self._text, self._most = b"", most
        self._thread = threading.Thread(target=self._read, args=(worker.stderr,), daemon=True)
        self._thread.start()

    def _read(self, pipe: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := pipe.read1(65536):
                self._text = (self._text + piece)[-self._most :]
            pipe.close()

    def end(self) -> str:
        """Of its last lines, the last."""
        self._thread.join(1.0)
        lines = self._text.decode(errors="replace").strip().splitlines()
        return f"its last words were: {lines[-1].strip()}" if lines else "it said nothing"


def _accepted(listener: Listener, worker: subprocess.Popen[bytes], closing: threading.Event) -> Connection:
    """The connection that a process makes, which may end before."""
    found: list[Connection] = []
    failed: list[BaseException] = []

    def accept() -> None:
        try:
            found.append(listener.accept())
        except BaseException as error:
            failed.append(error)

    waiting = threading.Thread(target=accept, daemon=True)
    waiting.start()
    waited = 0.0
    while waiting.is_alive() and waited < STARTING and worker.poll() is None and not closing.is_set():
        waiting.join(0.05)
        waited += 0.05
    if found:
        return found[0]
    raise EOFError(str(failed[0]) if failed else "it did not say that it is there")


def main() -> None:
    """A process that draws for the pool at an address; the key stands in its standard input."""
    key = sys.stdin.buffer.read()
    connection = Client(sys.argv[1], "AF_UNIX", authkey=key)
    blueprint: Blueprint = connection.recv()
    try:
        serve_connection(connection, blueprint.host)
    except UsageError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
