"""Processes that end when this one does, however it ends."""

from __future__ import annotations

import contextlib
import subprocess


class Lifeline:
    """Ends other processes as soon as this one is gone, even if it is killed, crashes, or cannot run any code of Python's.

    A shell waits for the end of its input, which comes when this process closes its side, whatever the reason.

    Args:
        targets: ids of processes, or minus the id of a group of processes.
    """

    def __init__(self, *targets: int) -> None:
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read line; kill -9 "$@"', "cohort-lifeline", *map(str, targets)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def close(self) -> None:
        """Leave the processes to themselves."""
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
