"""Processes and folders that end when this process does, however it ends."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path


class Lifeline:
    """Ends other processes, and takes folders away, as soon as this one is gone, even if it is killed, crashes, or cannot
    run any code of Python's.

    A shell waits for the end of its input, which comes when this process closes its side, whatever the reason.

    Args:
        targets: ids of processes, or minus the id of a group of processes.
        folders: what is taken away after that, with all that is in them.
    """

    def __init__(self, *targets: int, folders: tuple[Path, ...] = ()) -> None:
        kill = f"kill -9 {' '.join(map(str, targets))}; " if targets else ""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f'read line; {kill}rm -rf -- "$@"', "cohort-lifeline", *map(str, folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def close(self) -> None:
        """Leave the processes to themselves, and the folders where they are."""
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()


class Scratch:
    """A new folder of this process, which goes with it: what a killed run leaves in memory would be lost to the machine.

    Args:
        prefix: of its name.
        parent: where it is made; None takes the usual place.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
        self._lifeline = Lifeline(folders=(self.path,))

    def close(self) -> None:
        """Take it away."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lifeline.close()
