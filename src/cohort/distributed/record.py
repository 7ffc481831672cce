"""What the attempts of one launch tell each other: the run's folder, and that it is over.

torchrun starts processes again when one of them fails. What failed for a reason that will not go away, such as a file that is
not there, is not to be tried again; and what goes on, goes on in the folder that the first attempt has chosen.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cohort.files import write_atomically

# Names the record's file, where `cohort train --processes` starts the processes.
PLACE = "COHORT_LAUNCH"
# The status with which a process ends so that all are started again.
AGAIN = 75


def in_ranks(environment: Mapping[str, str] = os.environ) -> bool:
    """True in a process that torchrun has started."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """True in a process that `cohort train --processes` has started."""
    return in_ranks(environment) and PLACE in environment


def leads(environment: Mapping[str, str] = os.environ) -> bool:
    """True in the one process of those that torchrun has started which runs the run, and in a process by itself."""
    return environment.get("RANK", "0") == "0"


class Record:
    """The record of a launch, in a file of the driver's machine.

    Args:
        path: of the file; None finds it: all attempts have the same parent.
    """

    def __init__(self, path: Path | None = None) -> None:
        name = f"cohort-ranks-{os.getuid() if hasattr(os, 'getuid') else 0}-{os.getppid()}.json"
        self.path = path or Path(os.environ.get(PLACE) or Path(tempfile.gettempdir()) / name)

    def read(self) -> dict[str, Any]:
        """What stands there; nothing where nothing does."""
        try:
            # In a folder that all users write to, another's file could end our processes.
            if hasattr(os, "getuid") and self.path.stat().st_uid != os.getuid():
                return {}
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, **values: Any) -> None:
        """Add to what stands there."""
        text = json.dumps({**self.read(), **values})
        write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def clear(self) -> None:
        """A first attempt begins, or nothing will be read any more."""
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Have a command end so that torchrun, where it has started this process, does not try again what cannot work."""
    if not in_ranks():
        yield
        return
    driver, attempt = leads(), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt != "0" and (driver or launched()) and isinstance(over := Record().read().get("status"), int):
        sys.exit(0 if launched() else over)  # it was said
    status = 0
    with contextlib.ExitStack() as aside:
        if not driver:
            # What all find out, the driver says.
            aside.enter_context(contextlib.redirect_stdout(io.StringIO()))
            aside.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            yield
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            say_of_rank("".join(traceback.format_exception(error)))
            # It has failed alone, or the driver would know, and say so.
            status = 1 if driver else AGAIN
    if driver and status != AGAIN:
        note(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status == AGAIN:
        # Operations with a process that is gone may never end.
        os._exit(AGAIN)
    sys.exit(0 if launched() or not driver else status)


def note(status: int) -> None:
    """The run is over, with a status, and not to be tried again; of the driver."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if launched() or (status and attempt != os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        Record().write(status=status)
    else:
        Record().clear()  # nobody will read it


def say_of_rank(text: str) -> None:
    """Lines on standard error, of which it is said whose they are where that is not the driver."""
    before = "" if leads() else f"rank {os.environ['RANK']}: "
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(before + line for line in text.rstrip().splitlines()), file=sys.__stderr__, flush=True)
