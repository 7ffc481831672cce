"""The process in which reward functions run: `python -m cohort.rewards.worker`.

It reads calls from standard input, as pickles of its parent's, and writes replies to standard output, as JSON, both in
frames. What reward functions print goes to standard error; they find standard input empty.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from types import ModuleType
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.calling import ERROR, TIME, TRACEBACK, Reply, TrainerState, call
from cohort.rewards.frames import read_frame, write_frame
from cohort.rewards.interface import interface

# Calls of a function after which nobody looks any more whether it changes what it holds.
LOOKS = 3


class Functions:
    """The reward functions of a run, loaded and called in this process.

    Args:
        given: those that came from Python, by name.
    """

    def __init__(self, given: dict[str, Callable[..., Any] | None], *, contained: bool = False) -> None:
        self.given, self.contained = given, contained
        self.loaded: list[Callable[..., Any]] = []
        self._modules: dict[str, ModuleType] = {}

    def load(self, text: str, name: str) -> Reply:
        """Load the next function: what `text` says, or the one of that name that came from Python; its interface.

        Raises:
            UsageError: it cannot be loaded.
        """
        from cohort.rewards.spec import RewardSpec

        function = RewardSpec(text, name, function=self.given.get(name)).load(self._modules)
        self.loaded.append(function)
        return asdict(interface(function))

    def call(
        self, indices: list[int], given: Callable[[], dict[str, Any]], rows: int, state: TrainerState
    ) -> list[Reply]:
        """See `cohort.rewards.calling.call`."""
        return call([self.loaded[i] for i in indices], given, rows, state, contained=self.contained)


class Watched(Functions):
    """The same in another process than the one in which functions from Python were made: says if they change what they hold."""

    def __init__(self, given: dict[str, Callable[..., Any] | None], *, contained: bool = False) -> None:
        super().__init__(given, contained=contained)
        self._looks: dict[int, int] = {}

    def call(
        self, indices: list[int], given: Callable[[], dict[str, Any]], rows: int, state: TrainerState
    ) -> list[Reply]:
        from cohort.rewards.sending import fingerprints

        own = set(map(id, self.given.values()))
        open_ = [i for i in indices if self._looks.get(i, 0) < LOOKS and id(self.loaded[i]) in own]
        before = {i: fingerprints(self.loaded[i]) for i in open_}
        replies = super().call(indices, given, rows, state)
        for i, reply in zip(indices, replies, strict=True):
            if i in before:
                after = fingerprints(self.loaded[i])
                reply["changed"] = sorted(k for k, v in before[i].items() if after.get(k, v) != v)
                self._looks[i] = LOOKS if reply["changed"] else self._looks.get(i, 0) + 1
        return replies


def end_with(parent: int) -> None:
    """Have the system end this process when the thread that started it ends, where the system can (Linux).

    The parent's lifeline ends it and its children everywhere; this holds even if a child of the parent's keeps that open.
    """
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def outlast_signals() -> None:
    """Take no notice of a request to end that goes to every process of a job (systemd, scancel): the run answers it, and
    needs the rewards of the step that it finishes. A handler rather than SIG_IGN, which children would inherit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


class Streams:
    """Standard streams as reward functions find them: input is empty, and output and error lead to the parent, whatever was
    done to them."""

    def __init__(self) -> None:
        # Where they lead, under numbers that no function of the user's knows.
        self.fd, self.empty = os.dup(2), os.open(os.devnull, os.O_RDONLY)
        faulthandler.enable(file=self.fd)

    def renew(self) -> None:
        """Make good what a function closed or replaced."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        for fd, number in ((self.empty, 0), (self.fd, 1), (self.fd, 2)):
            os.dup2(fd, number)
        for number, name in ((1, "stdout"), (2, "stderr")):
            if getattr(getattr(sys, name), "closed", True):
                made = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, made)
                setattr(sys, f"__{name}__", made)


def _failure(error: BaseException) -> Reply:
    text = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {"error": text[:ERROR], "traceback": trace[-TRACEBACK:]}


def _unpacked(data: bytes | None) -> dict[str, Callable[..., Any] | None]:
    if data is None:
        return {}
    import dill

    found: dict[str, Callable[..., Any] | None] = dill.loads(data)
    return found


def _arguments(columns: dict[str, bytes]) -> dict[str, Any]:
    return {name: pickle.loads(data) for name, data in columns.items()}


def main() -> None:
    """Serve calls until the parent goes away."""
    if len(sys.argv) > 1:
        end_with(int(sys.argv[1]))
    outlast_signals()
    from cohort.quiet import quiet_command

    # A judge that loads a model would print a bar a load.
    quiet_command()
    # Neither what a reward function prints nor what it or a child of it reads may touch the messages.
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    for stream in (sys.stdout, sys.stderr):
        # What was printed is there even if the process dies in the next line.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    pid = os.getpid()
    streams = Streams()
    streams.renew()
    functions = Functions({})
    while True:
        try:
            message = pickle.loads(read_frame(requests))
        except EOFError:
            # Threads that functions started do not keep it alive.
            os._exit(0)
        reply: Any
        try:
            if "functions" in message:
                sys.path += [entry for entry in message["path"] if entry not in sys.path]
                functions = Watched(_unpacked(message["functions"]), contained=True)
                reply = {"ready": True}
            elif "load" in message:
                reply = functions.load(*message["load"])
            else:
                # Shows, in what the worker said last, where a function hangs when its time is up.
                faulthandler.dump_traceback_later(0.9 * message["timeout"], file=streams.fd)
                TIME.set(message["timeout"])
                arguments = partial(_arguments, message["columns"])
                state = TrainerState(**message["state"])
                reply = functions.call(message["rewards"], arguments, message["rows"], state)
        except BaseException as error:
            reply = _failure(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        if os.getpid() != pid:
            # A child that a reward file forked and that came back from it in its parent's place.
            os._exit(0)
        streams.renew()
        write_frame(replies, json.dumps(reply).encode())


if __name__ == "__main__":
    main()
