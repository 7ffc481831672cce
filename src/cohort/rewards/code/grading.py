"""What becomes of a program in the tests of its row."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

from cohort.errors import shown
from cohort.rewards.code.assertions import Call
from cohort.rewards.code.compare import same_output, told
from cohort.rewards.code.program import completed
from cohort.rewards.code.sandbox import Limits, Ran, Sandbox
from cohort.rewards.code.scripts import Scripted, run_script
from cohort.rewards.code.shapes import Suite
from cohort.rewards.code.wire import Unspeakable

# The share of the time of a batch (reward_timeout) that its programs may take.
SHARE = 0.75
# Words for what ended a run.
WORDS = {
    "time": "time: it was stopped after {cpu} s of computing, or {seconds:.3g} s in all",
    "memory": "memory: it asked for more than {memory} MiB",
    "output": "output: it wrote more than {output} MiB",
    "ended": "error: {error}",
    "lost": "error: it ended its sandbox",
}


@dataclass(frozen=True)
class Verdict:
    """How a program did.

    Attributes:
        share: of its tests that passed.
        why: "passed", "wrong", or what stopped the first run that did not pass: "time", "memory", "output", "error".
        detail: the first test that it did not pass, and why.
        cut: a run was stopped at less than its usual time, since the batch had no more.
    """

    share: float
    why: str = "passed"
    detail: str = ""
    cut: bool = False


class Place(Protocol):
    """Where programs run.

    Attributes:
        at_once: programs that run side by side.
    """

    @property
    def at_once(self) -> int: ...

    def close(self) -> None:
        """Give up what is kept between programs; it is made anew where it is needed."""

    def stream(self, source: str, given: str, limits: Limits) -> Ran:
        """Run a program on standard input."""
        ...

    def calls(self, source: str, calls: Sequence[Call], limits: Limits) -> Ran:
        """Run a program, and call functions of it, as far as it comes."""
        ...

    def script(self, source: str, program: str, tests: Suite, code: str, limits: Limits) -> Scripted:
        """Run test code on a program."""
        ...


class Local:
    """Sandboxes of this machine: two a thread, for programs and for test code, kept while nothing is left in them.

    Args:
        make: a sandbox for "program", or for "asserts".
    """

    def __init__(self, make: Callable[[str], Sandbox] = Sandbox) -> None:
        self._make = make
        self._own = threading.local()
        self._all: list[Sandbox] = []
        there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.at_once = there or 1

    def _sandbox(self, part: str = "program") -> Sandbox:
        sandbox: Sandbox | None = getattr(self._own, part, None)
        if sandbox is None or sandbox.used or not sandbox.alive:
            if sandbox is not None:
                sandbox.close()
            sandbox = self._make(part)
            setattr(self._own, part, sandbox)
            self._all = [each for each in self._all if each.alive] + [sandbox]
        return sandbox

    def close(self) -> None:
        """End all sandboxes."""
        for sandbox in self._all:
            sandbox.close()

    def stream(self, source: str, given: str, limits: Limits) -> Ran:
        return self._sandbox().run({"do": "stdin", "source": source, "input": given.encode()}, limits)

    def calls(self, source: str, calls: Sequence[Call], limits: Limits) -> Ran:
        return self._sandbox().run({"do": "cases", "source": source, "cases": list(calls)}, limits)

    def script(self, source: str, program: str, tests: Suite, code: str, limits: Limits) -> Scripted:
        judged, judging = self._sandbox(), self._sandbox("asserts")
        stub = "\n\n".join(filter(None, (tests.setup, tests.stub)))
        return run_script(judged, judging, source, program, stub, tests.entry, code, limits)


def grade(program: str, tests: Suite, place: Place, limits: Limits, *, every: bool, until: float) -> Verdict:
    """How a program does in tests.

    Args:
        every: go on after the first that it does not pass.
        until: time (monotonic) at which its tests end.
    """
    source = "\n\n".join(filter(None, (tests.setup, completed(tests.stub, program, tests.entry))))
    passed, first, cut = 0.0, ("passed", ""), False
    for number, result in enumerate(_results(source, program, tests, place, limits, until), 1):
        if result is None:
            passed += 1
            continue
        why, detail, short, *share = result
        passed += share[0] if share else 0.0
        cut |= short
        if first[0] == "passed":
            first = (why, f"test {number} of {tests.total}: {detail}")
        if not every:
            break
    return Verdict(1.0 if first[0] == "passed" else min(passed / tests.total, 0.999), *first, cut)


# None where a test is passed; else the kind of failure, what happened, whether time was cut short, and of a test of several
# parts the share that passed.
Result = tuple[str, str, bool] | tuple[str, str, bool, float] | None


def _results(source: str, program: str, tests: Suite, place: Place, limits: Limits, until: float) -> Iterator[Result]:
    """One result a test, made as it is asked for."""
    for given, expected in tests.streams:
        now, short = _left(limits, until)
        if now is None:
            yield "time", "its time was up before", short
            continue
        ran = place.stream(source, given, now)
        if ran.status != "done":
            yield _stopped(ran, now, short)
        elif same_output(said := ran.out.decode(errors="replace"), expected):
            yield None
        else:
            yield "wrong", f"it printed {shown(said, 80)}, expected {shown(expected, 80)}", False
    yield from _cases(source, tests, place, limits, until)
    for code in tests.scripts:
        now, short = _left(limits, until)
        if now is None:
            yield "time", "its time was up before", short
            continue
        found = place.script(source, program, tests, code, now)
        if found.ran is not None:
            yield _stopped(found.ran, now, short)
        else:
            yield None if found.share == 1.0 else ("wrong", found.detail, False, found.share)


def _cases(source: str, tests: Suite, place: Place, limits: Limits, until: float) -> Iterator[Result]:
    """All calls in one run; where it stops at one, the others in a further run."""
    rest = list(tests.cases)
    while rest:
        now, short = _left(limits, until)
        if now is None:
            yield from [("time", "its time was up before", short)] * len(rest)
            return
        calls = [call for case in rest for call in case.calls]
        ran = place.calls(source, calls, now)
        lines = ran.results.split(b"\n")[:-1]
        done = 0
        while rest:
            case = rest[0]
            if len(lines) - done < len(case.calls):
                break
            del rest[0]
            yield _judged(case.calls, case.holds, case.text, lines[done : done + len(case.calls)])
            done += len(case.calls)
        if rest:
            yield _stopped(ran, now, short)
            del rest[0]
            if not lines:
                # It does not come to its first call.
                yield from [_stopped(ran, now, short)] * len(rest)
                return


def _judged(calls: Sequence[Call], holds: Callable[[Sequence[Any]], bool], text: str, lines: Sequence[bytes]) -> Result:
    values = []
    for (path, *_), line in zip(calls, lines, strict=True):
        try:
            returned, value = told(line)
        except Unspeakable as error:
            return "wrong", f"{path}: {error} ({text})", False
        if not returned:
            return "error", f"{path} raised {value} ({text})", False
        values.append(value)
    if holds(values):
        return None
    return "wrong", f"{calls[0][0]} returned {shown(values[0], 80)} ({shown(text, 80)})", False


def _left(limits: Limits, until: float) -> tuple[Limits | None, bool]:
    """Limits of the next run, and whether they are short of the usual ones."""
    left = until - time.monotonic()
    if left < 0.05:
        return None, True
    return replace(limits, seconds=min(limits.seconds, left)), left < limits.seconds


def _stopped(ran: Ran, limits: Limits, short: bool) -> tuple[str, str, bool]:
    mib = 1 << 20
    text = WORDS.get(ran.status, "error: it ended before").format(
        cpu=limits.cpu,
        seconds=limits.seconds,
        memory=limits.memory // mib,
        output=limits.output // mib,
        error=ran.error or "it ended",
    )
    why = ran.status if ran.status in ("time", "memory", "output") else "error"
    return why, text, short and why == "time"


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """The threads of this process that wait for programs; a sandbox ends with the thread that started it."""
    return ThreadPoolExecutor(count, "code")


def grade_all(
    programs: Sequence[tuple[str, Suite]], place: Place, limits: Limits, *, every: bool, seconds: float
) -> list[Verdict]:
    """Verdicts of programs, within a time.

    Each may take an equal share of what is left: quick ones leave their time to slow ones, and a batch of slow ones ends.

    Args:
        every: grade all tests, not only up to the first that a program does not pass.
        seconds: that all of them may take.
    """
    end = time.monotonic() + seconds
    lock, waiting = threading.Lock(), [len(programs)]

    def one(program: tuple[str, Suite]) -> Verdict:
        now = time.monotonic()
        with lock:
            share = max(0.0, end - now) * min(1.0, place.at_once / waiting[0])
            waiting[0] -= 1
        return grade(*program, place, limits, every=every, until=min(end, now + share))

    return list(_threads(place.at_once).map(one, programs))
