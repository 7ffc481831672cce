from __future__ import annotations

import sys
import tempfile
import time
import venv

import psutil
import pytest

from cohort.rewards.code import sandbox
from cohort.rewards.code.sandbox import Limits, Sandbox
from cohort.rewards.code.seccomp import filters
from tests.rewards.code.places import needs_sandbox

pytestmark = needs_sandbox
HELLO = {"do": "stdin", "source": "print('hello')", "input": b""}


def test_a_sandbox_that_is_ended_while_it_starts_leaves_no_process() -> None:
    before = {each.pid for each in psutil.process_iter()}
    for number in range(40):
        made = Sandbox()
        time.sleep(number * 0.0005)
        made.close()
    own = [
        each for each in psutil.process_iter(["name", "pid"]) if each.pid not in before and each.info["name"] == "bwrap"
    ]
    until = time.monotonic() + 5
    while (
        any(each.is_running() and each.ppid() in (1, psutil.Process().pid) for each in own) and time.monotonic() < until
    ):
        time.sleep(0.05)
    assert not [each for each in own if each.is_running() and each.ppid() == psutil.Process().pid]


def test_it_serves_one_program_after_the_other_until_one_leaves_something() -> None:
    with Sandbox() as made:
        for _ in range(3):
            assert made.run(HELLO, Limits()).out == b"hello\n"
        assert not made.used
        assert made.run({**HELLO, "source": "open('x', 'w')"}, Limits()).status == "done"
        assert made.used
        assert made.alive
    assert not made.alive


def test_a_sandbox_that_ended_says_so() -> None:
    made = Sandbox()
    assert made.run(HELLO, Limits()).status == "done"
    made.close()
    assert made.run(HELLO, Limits()).status == "lost"
    assert made.used


def test_a_program_sees_little() -> None:
    look = "import os, platform\nprint(sorted(os.listdir('/')), os.getpid() < 10, platform.node(), sorted(os.environ))"
    with Sandbox() as made:
        seen = made.run({**HELLO, "source": look}, Limits()).out.decode()
    assert "sandbox" in seen
    assert not any(name in seen for name in ("home", "proc", "work", "HOME", "PATH"))


def test_the_order_of_sets_is_the_same_in_every_sandbox() -> None:
    request = {**HELLO, "source": "print({str(i) for i in range(50)}, hash('x'))"}
    seen = set()
    for _ in range(2):
        with Sandbox() as made:
            seen.add(made.run(request, Limits()).out)
    assert len(seen) == 1


def test_another_interpreter_brings_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("this interpreter has no environment of its own")
    known = (sandbox._interpreter, sandbox._command)
    for each in known:
        each.cache_clear()
    monkeypatch.setenv(sandbox.PYTHON, sys.executable)
    try:
        with Sandbox() as made:
            source = "import numpy as np\ndef f(n):\n    return np.arange(n) * 1.5\ndef g():\n    return np.int64(3)"
            calls = [("f", (3,), {}), ("g", (), {})]
            ran = made.run({"do": "cases", "source": source, "cases": calls}, Limits(seconds=20.0))
        assert ran.results == b'v["l",0.0,1.5,3.0]\nv3\n', ran
    finally:
        for each in known:
            each.cache_clear()


def test_an_interpreter_that_stands_in_tmp_is_found_and_nothing_is_left_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = (sandbox._interpreter, sandbox._command)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        venv.create(folder, symlinks=True)
        for each in known:
            each.cache_clear()
        monkeypatch.setenv(sandbox.PYTHON, f"{folder}/bin/python")
        try:
            with Sandbox() as made:
                left = f"import sys\nprint(sys.prefix)\nopen({folder!r} + '/left', 'w')"
                ran = made.run({**HELLO, "source": left}, Limits(seconds=20.0))
        finally:
            for each in known:
                each.cache_clear()
    assert ran.out.decode().strip() == folder, ran
    assert b"Read-only file system" in ran.err


def test_the_filters_are_programs_of_the_kernel() -> None:
    whole, sealed = filters()
    # Instructions of 8 bytes, of which the kernel takes at most 4096.
    assert all(len(each) % 8 == 0 and 5 < len(each) // 8 < 4096 for each in (whole, sealed))
