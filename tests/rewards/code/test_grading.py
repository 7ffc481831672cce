from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cohort.rewards.code.assertions import Call
from cohort.rewards.code.grading import Local, Verdict, grade, grade_all
from cohort.rewards.code.sandbox import Limits, Ran
from cohort.rewards.code.scripts import Scripted
from cohort.rewards.code.shapes import Suite, read_tests
from tests.rewards.code.places import needs_sandbox

STREAMS = read_tests({"tests": [{"input": str(n), "output": str(2 * n)} for n in (1, 2, 3)]})
CASES = read_tests({"entry_point": "f", "cases": [[[n], 2 * n] for n in (1, 2, 3)]})


class Played:
    """A place where nothing runs: what becomes of each run is written down beforehand."""

    at_once = 2

    def __init__(self, *runs: Ran | Scripted) -> None:
        self.runs, self.asked, self.limits = list(runs), [], []

    def _next(self, asked: Any, limits: Limits) -> Any:
        self.asked.append(asked)
        self.limits.append(limits)
        return self.runs.pop(0)

    def close(self) -> None: ...

    def stream(self, source: str, given: str, limits: Limits) -> Ran:
        return self._next(given, limits)

    def calls(self, source: str, calls: Sequence[Call], limits: Limits) -> Ran:
        return self._next([call[1] for call in calls], limits)

    def script(self, source: str, program: str, tests: Suite, code: str, limits: Limits) -> Scripted:
        return self._next(code, limits)


def _grade(tests: Suite, *runs: Ran | Scripted, every: bool = True) -> tuple[Verdict, Played]:
    place = Played(*runs)
    return grade("program", tests, place, Limits(), every=every, until=time.monotonic() + 100), place


def _said(*texts: str) -> list[Ran]:
    return [Ran("done", text.encode()) for text in texts]


def test_outputs_are_compared_here() -> None:
    assert _grade(STREAMS, *_said("2", "4", "6"))[0] == Verdict(1.0)
    verdict, _ = _grade(STREAMS, *_said("2", "5", "6"))
    assert verdict == Verdict(2 / 3, "wrong", "test 2 of 3: it printed '5', expected '4'")


def test_the_first_failure_ends_it_where_all_must_pass() -> None:
    verdict, place = _grade(STREAMS, *_said("2", "5", "6"), every=False)
    assert (verdict.share, verdict.why, place.asked) == (1 / 3, "wrong", ["1", "2"])


@pytest.mark.parametrize(
    ("status", "why", "says"),
    [
        ("time", "time", "it was stopped after 4 s of computing, or 10 s in all"),
        ("memory", "memory", "more than 1024 MiB"),
        ("output", "output", "more than 8 MiB"),
        ("ended", "error", "ValueError: x"),
        ("lost", "error", "it ended its sandbox"),
    ],
)
def test_what_stopped_a_program_is_told(status: str, why: str, says: str) -> None:
    # What it printed before it was stopped does not count.
    stopped = Ran(status, b"2", b"Traceback\n  line\nValueError: x\n")
    verdict, _ = _grade(STREAMS, stopped, *_said("4", "6"))
    assert (verdict.share, verdict.why) == (2 / 3, why)
    assert says in verdict.detail


def test_calls_go_on_behind_one_that_stops_the_program() -> None:
    verdict, place = _grade(CASES, Ran("time", results=b"v2\n"), Ran("done", results=b"v6\n"))
    assert (verdict.share, verdict.why) == (2 / 3, "time")
    assert place.asked == [[(1,), (2,), (3,)], [(3,)]]


def test_a_program_that_comes_to_no_call_is_not_run_again() -> None:
    verdict, place = _grade(CASES, Ran("ended", err=b"NameError: x"))
    assert (verdict.share, verdict.why, len(place.asked)) == (0.0, "error", 1)


def test_errors_and_values_of_calls_are_told() -> None:
    verdict, _ = _grade(CASES, Ran("done", results=b'v2\ne"KeyError: 1"\nv[0]\n'))
    assert verdict == Verdict(1 / 3, "error", "test 2 of 3: f raised KeyError: 1 (cases[2])")
    verdict, _ = _grade(CASES, Ran("done", results=b"v2\nv4\nv5\n"))
    assert (verdict.share, verdict.detail) == (2 / 3, "test 3 of 3: f returned 5 ('cases[3]')")


def test_a_program_cannot_tell_more_than_was_asked() -> None:
    verdict, _ = _grade(CASES, Ran("done", results=b"v0\nv0\nv0\nv2\nv4\nv6\n"))
    assert verdict.share == 0.0
    verdict, _ = _grade(CASES, Ran("done", results=b"passed\n2\n\n"))
    assert verdict.share == 0.0
    verdict, _ = _grade(CASES, Ran("done", results=b"v" + str(10**30).encode() + b"\nv4\nv6\n"))
    assert (verdict.share, verdict.why) == (2 / 3, "wrong")


def test_parts_of_test_code_count() -> None:
    tests = read_tests({"test_code": "for i in range(3):\n    assert f(i)\n"})
    assert _grade(tests, Scripted(1.0))[0] == Verdict(1.0)
    assert _grade(tests, Scripted(0.75, "AssertionError"))[0] == Verdict(0.75, "wrong", "test 1 of 1: AssertionError")
    assert _grade(tests, Scripted(0.0, ran=Ran("time")))[0].why == "time"


def test_no_test_is_run_behind_the_end_of_its_time() -> None:
    place = Played()
    verdict = grade("x", STREAMS, place, Limits(), every=True, until=time.monotonic() - 1)
    assert (verdict.share, verdict.why, verdict.cut, place.asked) == (0.0, "time", True, [])


def test_a_batch_fits_into_its_time() -> None:
    """Every run takes all of its time: the shares add up to what there is."""

    class Slow(Played):
        def stream(self, source: str, given: str, limits: Limits) -> Ran:
            self.limits.append(limits)
            time.sleep(limits.seconds)
            return Ran("time")

    one = read_tests({"tests": [{"input": "1", "output": "2"}]})
    place, begin = Slow(), time.monotonic()
    verdicts = grade_all([("x", one)] * 8, place, Limits(seconds=5.0), every=True, seconds=1.0)
    assert time.monotonic() - begin < 2.0
    assert {(verdict.why, verdict.cut) for verdict in verdicts} == {("time", True)}
    assert min(limits.seconds for limits in place.limits) > 0.1


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    place = Local()
    yield place
    place.close()


def _run(place: Local, program: str, row: dict[str, Any], limits: Limits | None = None) -> Verdict:
    (verdict,) = grade_all([(program, read_tests(row))], place, limits or Limits(), every=True, seconds=60.0)
    return verdict


DOUBLE = {"tests": [{"input": "3\n", "output": "6\n"}, {"input": "-1", "output": "-2"}]}


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "print(int(input()) * 2)",
        "import sys\nprint(int(sys.stdin.read()) * 2)",
        "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)",
        "print(int(open(0).read()) * 2)",
        "import os\nos.write(1, str(2 * int(os.read(0, 100))).encode())",
        "import sys\nsys.stdout.buffer.write(b'%d' % (2 * int(sys.stdin.buffer.readline())))",
        "import sys, io\nsys.stdin = io.StringIO(sys.stdin.read())\nprint(int(input()) * 2)",
        "import atexit\nout = []\natexit.register(lambda: print(*out))\nout.append(int(input()) * 2)",
        "import threading\ndef main():\n    print(int(input()) * 2)\n"
        "threading.stack_size(1 << 27)\nthreading.Thread(target=main).start()",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n"
        "    return 0 if n == 0 else 1 + f(n - 1)\nassert f(20000) == 20000\n"
        "print(int(input()) * 2)",
        "def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()",
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print(int(input()) * 2)\nasyncio.run(main())",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
        "    print(pool.submit(lambda n: 2 * n, int(input())).result())",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int\nprint(A(int(input()) * 2).n)",
        "with open('x.txt', 'w') as f:\n    f.write(input())\nprint(int(open('x.txt').read()) * 2)",
        "import tempfile\nwith tempfile.TemporaryFile('w+') as f:\n"
        "    f.write(input()); f.seek(0)\n    print(int(f.read()) * 2)",
        "exit(print(int(input()) * 2))",
        "import sys\nprint(int(input()) * 2)\nsys.exit()",
        "import random, time, math, re, json, heapq, bisect, itertools, functools, collections, decimal, fractions, string\n"
        "print(int(input()) * 2)",
    ],
)
def test_the_usual_ways_to_read_and_write_work(local: Local, program: str) -> None:
    assert _run(local, program, DOUBLE) == Verdict(1.0)


@needs_sandbox
def test_functions_are_called_as_data_sets_do(local: Local) -> None:
    row = {"entry_point": "f", "cases": [[[1], [1, 2]], [{"n": 2}, [2, 4]]]}
    for program in (
        "def f(n):\n    return (n, 2 * n)",
        "f = lambda n: [n, 2 * n]",
        "class Solution:\n    def f(self, n):\n        return [n, 2 * n]",
        "from functools import partial\ndef g(k, n):\n    return [n, k * n]\nf = partial(g, 2)",
        "def f(n):\n    print('debug')\n    return [n, 2 * n]\nif __name__ == '__main__':\n    print(f(int(input())))",
    ):
        assert _run(local, program, row) == Verdict(1.0)
    solution = "class Solution:\n    def f(self, n):\n        return [n, 2 * n]"
    assert _run(local, solution, {**row, "entry_point": "Solution().f"}) == Verdict(1.0)
    assert _run(local, solution, {"test_code": "assert Solution().f(3) == [3, 6]"}) == Verdict(1.0)


@needs_sandbox
def test_limits_stop_a_program_and_are_told(local: Local) -> None:
    quick = Limits(seconds=1.5, cpu=1)
    row = {"tests": [{"input": "1", "output": "2"}]}
    for program, why in (
        ("while True: pass", "time"),
        ("import time\ntime.sleep(100)", "time"),
        ("x = [0] * (1 << 28)", "memory"),
        ("print('x' * (1 << 25))", "output"),
        ("raise ValueError('this')", "error"),
        ("print(1", "error"),
        ("print(3)", "wrong"),
    ):
        verdict = _run(local, program, row, quick)
        assert (verdict.share, verdict.why) == (0.0, why), verdict
    assert "ValueError: this" in _run(local, "raise ValueError('this')", row).detail


@needs_sandbox
def test_programs_leave_nothing_for_the_next(local: Local) -> None:
    """All run one after the other, in what is kept between them."""
    row = {"tests": [{"input": "", "output": "found"}]}
    leave = (
        "open('/tmp/left', 'w').write('found')",
        "import os\nos.mkdir('/tmp/d')\nos.utime('/tmp', (0, 0))",
        "import builtins, sys\nbuiltins.left = 'found'\nsys.modules['left'] = sys",
        "import os\nos.environ['left'] = 'found'\nos.chdir('/')\nos.umask(0)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(100,), daemon=True).start()\nglobals()['left'] = 1",
    )
    look = (
        "import os, sys, builtins, threading\n"
        "left = [*os.listdir('/tmp'), *[n for n in dir(builtins) if n == 'left'], *[n for n in sys.modules if n == 'left'],\n"
        "        *[n for n in os.environ if n == 'left'], *threading.enumerate()[1:], *(os.getcwd() != '/tmp') * ['folder']]\n"
        "print('found' if left else 'clean')"
    )
    one = Local()
    one.at_once = 1
    try:
        for program in leave:
            programs = [(program, read_tests(row)), (look, read_tests(row))]
            before, after = grade_all(programs, one, Limits(), every=True, seconds=60.0)
            assert before.why == "wrong"
            assert "clean" in after.detail
    finally:
        one.close()
