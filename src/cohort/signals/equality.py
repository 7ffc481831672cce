"""Mathematical equality, by math-verify in a process of its own: `python -m cohort.signals.equality`.

Completions hold formulas that take forever or all memory (10**10**10), within calls that no signal interrupts. So the process
has a limit of processor time for each question and one of memory; where one is reached it ends, the answer counts as not
equal, and the next question starts another. Requests and replies are lines of JSON.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

# Of processor time, since wall clock time would make rewards depend on what else the machine does. Comparisons take
# milliseconds.
SECONDS = 2.0
MEMORY = 4 << 30
# Longer texts are searched for an answer from here to their end, and a marked answer that long is no answer.
LONGEST = 20_000

_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None


@lru_cache(maxsize=512)
def equal(gold: str, readings: tuple[str, ...]) -> bool:
    """True if a formula that math-verify finds in one of the readings is equal to one that it finds in the gold text.

    What it rounds away (1/2004! is 1/2006! to 15 digits) is compared exactly, unless a decimal was written.
    """
    return _ask(gold=gold, readings=readings)


@lru_cache(maxsize=512)
def readable(readings: tuple[str, ...]) -> bool:
    """True if math-verify finds a formula in one of the readings and understands it."""
    return _ask(readings=readings)


@lru_cache(maxsize=512)
def holds_answer(text: str) -> bool:
    """True if math-verify finds anything to compare with in a text, if only a word such as true."""
    return _ask(text=text, readings=())


@lru_cache(maxsize=4096)
def equivalent(gold: str, answer: str) -> bool:
    """True if two answers are equivalent, exactly and as a whole; see `cohort.signals.equivalence`. Symmetric."""
    return _ask(answers=[gold, answer], readings=())


def _ask(**request: Any) -> bool:
    if any(len(reading) > LONGEST for reading in request["readings"]):
        request["readings"] = [reading[-LONGEST:] for reading in request["readings"]]
    with _lock:
        process = _started()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        reply = process.stdout.readline()
        if not reply:
            close()
        return reply == "true\n"


def _started() -> subprocess.Popen[str]:
    global _process
    if _process is None or _process.poll() is not None:
        close()
        # After what the interpreter finds by itself, so that nothing of the user's is hidden.
        path = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])]
        _process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cohort.signals.equality"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"},
        )
    return _process


@atexit.register
def close() -> None:
    """End the process, if there is one."""
    global _process
    if _process is not None:
        _process.kill()
        _process.wait()
        for stream in (_process.stdin, _process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        _process = None


# in the process ------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until the other side goes away."""
    logging.disable()
    # Before memory is limited and time is measured.
    import math_verify  # noqa: F401

    from cohort.signals import equivalence  # noqa: F401

    for line in sys.stdin:
        # What the system does with a process at the end of its time needs no Python, which may be within a long call.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        request = json.loads(line)
        try:
            if "answers" in request:
                found = _equivalent(*request["answers"])
            elif "text" in request:
                found = bool(_parsed(request["text"]))
            elif "gold" in request:
                found = _compare(request["gold"], request["readings"])
            else:
                found = _reads(request["readings"])
        except (Exception, RecursionError):
            # Among them MemoryError, and what math-verify's libraries raise on what they cannot read.
            found = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(found), flush=True)


def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(text, parsing_timeout=None))


def _equivalent(one: str, other: str) -> bool:
    from cohort.signals import equivalence

    return equivalence.equivalent(one, other)


def _reads(readings: Sequence[str]) -> bool:
    # What was found but not understood comes back as text.
    return any(not isinstance(each, str) for reading in readings for each in _parsed(reading))


def _compare(gold: str, readings: Sequence[str]) -> bool:
    from math_verify import verify

    wanted = _parsed(gold)
    return any(
        verify(want, found, timeout_seconds=None) and not _differ(want, found)
        for reading in readings
        for found in _parsed(reading)
        for want in wanted
    )


def _differ(one: Any, other: Any) -> bool:
    """True of values that math-verify rounds to the same one, and that are not the same."""
    from sympy import Eq, Expr, Float, Interval, MatrixBase, Rational, Symbol, Tuple, UnevaluatedExpr, expand
    from sympy import FiniteSet as Set
    from sympy.core.relational import Relational

    if isinstance(one, MatrixBase) and isinstance(other, MatrixBase):
        return any(map(_differ, one, other))
    if isinstance(one, (Set, Tuple)) and isinstance(other, (Set, Tuple)) and len(one.args) == len(other.args):
        # Sets are in the order of their values, which rounding leaves as it is.
        return any(map(_differ, one.args, other.args))
    if isinstance(one, Interval) and isinstance(other, Interval):
        return _differ(one.start, other.start) or _differ(one.end, other.end)
    if isinstance(one, Relational) and isinstance(other, Relational):
        # Of relations with other left sides, one may be a multiple of the other.
        return bool(one.lhs == other.lhs and _differ(one.rhs, other.rhs))
    one, other = (each.rhs if isinstance(each, Eq) else each for each in (one, other))
    if not isinstance(one, Expr) or not isinstance(other, Expr) or isinstance(one, Symbol) or isinstance(other, Symbol):
        return False
    if one.has(UnevaluatedExpr) or other.has(UnevaluatedExpr):
        # A percentage, which may be meant with or without the sign.
        return False
    one, other = one.doit(), other.doit()
    difference = one - other
    if difference == 0:
        return False
    if one.free_symbols or other.free_symbols:
        difference = expand(difference)
        polynomial = difference.is_polynomial() and not difference.has(Float)
        return bool(polynomial and difference != 0 and all(c.is_Rational for c in difference.as_poly().coeffs()))
    if isinstance(one, Rational) and isinstance(other, Rational) and not difference.has(Float):
        return bool(difference != 0)
    if not (one.is_number and other.is_number):
        return False
    gap, *sizes = (abs(each.evalf(50)) for each in (difference, one, other))
    if not all(each.is_finite for each in (gap, *sizes)):
        return False
    rounded = one.has(Float) or other.has(Float)
    return bool(gap > max(sizes) * (1e-5 if rounded else 1e-30))


if __name__ == "__main__":
    # A limit may be lower already, or unknown to the system.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    serve()
