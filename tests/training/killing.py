"""Runs the command again and again in forks of one process that has imported everything, and kills them.

Reads a job from standard input: `whole` and `killed`, two command lines of the same run, and `moments`. Each of these is
["time", u]: SIGKILL from outside after the share u of the time that the whole run took; ["file", u]: at the share u of its
changes of the file system; or ["call", name, n]: at the n-th call of a function. The killed run is resumed after each, and
begun anew (with another folder) where it came to its end; at last it is left alone. Writes the exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import cohort.cli
from cohort.engine.native import drawing
from cohort.rollouts import journal
from cohort.training import checkpoint, precision
from cohort.training import run as module

CALLS: dict[str, tuple[Any, str, bool]] = {
    "sampling": (drawing, "pick", False),
    "update": (precision.MasterWeights, "step", True),
    "state written": (torch, "save", True),
    "journal": (journal.Journal, "_write", True),
    "before the rename": (checkpoint, "sync", False),
}
FILES = [(os, name) for name in ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir")] + [(torch, "save")]


def counted(count: list[int], owner: Any, name: str, at: int | None, after: bool = False) -> None:
    """Count the calls of a function, and die at one of them."""
    real: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        mine = count[0]
        if mine == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if mine == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def attempt(arguments: list[str], moment: list[Any] | None, took: float, changes: int) -> tuple[int, float, int]:
    """(exit code, seconds, changes of the file system) of a run in a fork."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        count, real = [0], module._Run.run

        def run(self: Any, *args: Any) -> Any:
            os.write(write, b"began\n")
            kind = moment[0] if moment else ""
            if moment and kind == "call":
                owner, name, after = CALLS[moment[1]]
                counted(count, owner, name, moment[2], after)
            else:
                for owner, name in FILES:
                    counted(count, owner, name, 1 + int(moment[1] * changes) if moment and kind == "file" else None)
            return real(self, *args)

        module._Run.run = run  # type: ignore[method-assign]
        sys.argv = ["cohort", *arguments]
        code = 1
        try:
            cohort.cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.write(write, str(count[0]).encode())
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as told:
        said = told.readline()
        began = time.monotonic()
        if moment and moment[0] == "time" and said == "began\n":
            time.sleep(moment[1] * took)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        rest = told.read()
    return os.waitstatus_to_exitcode(status), time.monotonic() - began, int(rest or 0)


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    code, took, changes = attempt(job["whole"], None, 0.0, 0)
    codes, number = [code], 1

    def arguments() -> list[str]:
        return [part.replace("KILLED", f"killed-{number}") for part in job["killed"]]

    for moment in job["moments"]:
        # What was left of a run can be over before the moment comes: then it is tried on a whole one.
        for _ in range(2):
            code, _, _ = attempt(arguments(), moment, took, changes)
            codes.append(code)
            if code != 0:
                break
            number += 1
    codes.append(attempt(arguments(), None, 0.0, 0)[0])
    print(json.dumps({"codes": codes, "folders": number}))


if __name__ == "__main__":
    main()
