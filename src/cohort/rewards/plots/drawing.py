"""Running programs that draw, in the sandbox of programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cohort.errors import UsageError
from cohort.rewards.calling import TIME
from cohort.rewards.code import sandbox
from cohort.rewards.code.grading import SHARE, Local
from cohort.rewards.code.kind import BATCH, SERVER
from cohort.rewards.code.remote import Remote
from cohort.rewards.code.sandbox import MIB, START, Limits, Ran, Sandbox
from cohort.signals.charts import Chart, charts_of

# Of one program. Matplotlib and numpy reserve more than they use.
LIMITS = Limits(seconds=20.0, cpu=10, memory=3072 * MIB, output=4 * MIB)
# What every program begins with: Matplotlib, and the metrics of a font, which take a second to read.
FIRST = """
import os
os.environ.update(MPLCONFIGDIR="/tmp", MPLBACKEND="Agg", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HOME="/tmp")
try:
    import matplotlib.category, matplotlib.dates, matplotlib.pyplot, numpy
    _figure = matplotlib.pyplot.figure()
    _figure.text(0, 0, "a")
    _figure.canvas.draw()
    matplotlib.pyplot.close(_figure)
except ImportError:
    pass
"""
WORDS = {
    "time": "it was stopped after its time",
    "memory": "it asked for too much memory",
    "output": "it wrote too much",
    "lost": "it ended its sandbox",
}
TRIAL = "plt.bar(['a', 'b'], [1, 2])\nplt.show()"


class Drawn(NamedTuple):
    """What a program drew.

    Attributes:
        executed: it came to its end, and left a figure that can be saved as a picture.
        charts: those with data.
        error: what kept it from that; "" where nothing did.
    """

    executed: bool
    charts: tuple[Chart, ...] = ()
    error: str = ""


@cache
def _source() -> str:
    """The program that runs a program and tells what it drew."""
    return Path(__file__).with_name("drawn.py").read_text(encoding="utf-8")


@cache
def _place() -> Local | Remote:
    server = os.environ.get(SERVER, "")
    if server:
        return Remote(server)
    sandbox.check()
    return Local(_ready)


def _ready(part: str) -> Sandbox:
    """A sandbox that has imported what programs begin with, so that none of them pays for it with its own time."""
    made = Sandbox(part, python=None if os.environ.get(sandbox.PYTHON) else sys.executable, first=FIRST)
    made.run({"do": "stdin", "source": "", "input": b""}, Limits(seconds=START))
    return made


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """The threads of this process that wait for programs; a sandbox ends with the thread that started it."""
    return ThreadPoolExecutor(count, "plot")


@cache
def check_drawing() -> None:
    """Programs that draw can be run.

    Raises:
        UsageError: they cannot; says why, and what to do.
    """
    (drawn,) = draw_all([TRIAL])
    if not drawn.executed or not drawn.charts:
        raise UsageError(
            "the reward 'plot' runs programs that draw with Matplotlib, which does not work here: "
            f"{drawn.error or 'no chart'}. Install it beside cohort (pip install 'cohort-rl[plots]'), name an interpreter "
            f"that has it with {sandbox.PYTHON}=path/to/python, or a server of SandboxFusion with {SERVER}=http://host:port"
        )


def _read(ran: Ran) -> Drawn:
    if ran.status != "done":
        return Drawn(False, error=WORDS.get(ran.status) or ran.error or "it ended early")
    try:
        told = json.loads(ran.out.decode(errors="replace").strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return Drawn(False, error="it drew nothing")
    if not isinstance(told, dict) or not told.get("figures"):
        return Drawn(False, error="it drew nothing")
    return Drawn(True, tuple(charts_of(told)))


def close() -> None:
    """End what is kept from program to program; it is made anew where it is needed."""
    place = _place()
    if isinstance(place, Local):
        place.close()


def draw_all(programs: Sequence[str]) -> list[Drawn]:
    """What programs draw, equal ones once, within the time that a reward function has.

    Each may take an equal share of the time that is left, so that a batch of slow ones ends.
    """
    each = list(dict.fromkeys(program for program in programs if program.strip()))
    if not each:
        return [Drawn(False, error="there is no program")] * len(programs)
    place, end = _place(), time.monotonic() + SHARE * (TIME.get() or BATCH)
    lock, waiting = threading.Lock(), [len(each)]

    def one(program: str) -> Drawn:
        left = end - time.monotonic()
        with lock:
            share = left * min(1.0, place.at_once / waiting[0])
            waiting[0] -= 1
        if share < 0.1:
            return Drawn(False, error="there was no time left for it")
        return _read(place.stream(_source(), program, replace(LIMITS, seconds=min(LIMITS.seconds, share))))

    known = dict(zip(each, _threads(place.at_once).map(one, each), strict=True))
    return [known.get(program) or Drawn(False, error="there is no program") for program in programs]
