"""A process of the user's code: started, followed in what it prints, and ended, with whatever it started, with this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

from cohort.lifeline import Lifeline
from cohort.rewards.printed import Printed

# Importing a user's file may load a model; that is not a call that hangs.
LOADING = 300.0
# Seconds between looks whether a process is alive whose pipe a child of it keeps open.
LOOK = 0.25


class Failed(Exception):
    """There was no reply; the process was ended.

    Attributes:
        late: its time was up.
        said: the end of what it printed.
    """

    def __init__(self, what: str, said: str, *, late: bool = False) -> None:
        super().__init__(what)
        self.said, self.late = said, late


class Child:
    """A process of a module of cohort's, which gets messages by a pipe.

    Args:
        module: that it runs.
        printed: takes what it prints.
    """

    def __init__(self, module: str, printed: Printed) -> None:
        self.module, self.printed = module, printed
        self.process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        # Another thread may end it than the one that waits for what it says.
        self._taking = threading.Lock()

    def spawn(self) -> None:
        """Start the process."""
        said, theirs = os.pipe()
        # The system ends a child with the thread that started it, so that a passing thread must not be named.
        parent = [str(os.getpid())] if threading.current_thread() is threading.main_thread() else []
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *parent],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._lifeline = Lifeline(-self.process.pid)
        self.printed.follow(said)

    def stop(self, patience: float = LOOK) -> int:
        """End the process and its children; its exit status, which says more if it may end by itself first."""
        return -signal.SIGKILL if self.process is None else _ended(self.process, patience)

    def said(self) -> str:
        """The end of what it printed; the process is ended."""
        said = self.printed.tail()
        self.close()
        return said

    def close(self) -> None:
        """End the process, and children of it."""
        with self._taking:
            process, lifeline = self.process, self._lifeline
            self.process = self._lifeline = None
        if process is None:
            return
        _ended(process, 0.0)
        if lifeline is not None:
            lifeline.close()
        self.printed.close()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _ended(process: subprocess.Popen[bytes], patience: float) -> int:
    """The exit status of a process that has ended, or is ended with its children after some seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def status(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
