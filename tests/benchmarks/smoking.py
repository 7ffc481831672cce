"""Parts that end in every way, for tests of `benchmarks.gpu_smoke`: run as `-m tests.benchmarks.smoking --part=...`."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.smoke_parts import Part
from benchmarks.smoke_place import NotHere, Place

from benchmarks import gpu_smoke


def good(place: Place) -> dict[str, Any]:
    return {"device": place.device, "share": 0.5}


def talking(place: Place) -> dict[str, Any]:
    """A library of it says something as the process ends."""
    atexit.register(print, "WARNING: destroy_process_group() was not called")
    return {}


def wrong(place: Place) -> dict[str, Any]:
    raise AssertionError("the numbers differ by 3")


def absent(place: Place) -> dict[str, Any]:
    raise NotHere("a package is not installed")


def crashing(place: Place) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hanging(place: Place) -> dict[str, Any]:
    """It has started a process, which must not be left."""
    child = subprocess.Popen(["sleep", "600"])
    (place.folder / "child").write_text(str(child.pid))
    time.sleep(600)
    return {}


PARTS = {
    each.__name__: Part(f"the {each.__name__} part", each) for each in (good, talking, wrong, absent, crashing, hanging)
}

if __name__ == "__main__":
    gpu_smoke.PARTS.update(PARTS)
    sys.exit(gpu_smoke.main())
