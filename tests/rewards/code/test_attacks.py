"""Programs that attack the reward gain nothing, and leave the machine as it was."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cohort.rewards.code.grading import Local, Verdict, grade_all
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import read_tests
from tests.rewards.code.attacks import ACTS, ATTACKS, ROWS, Attack
from tests.rewards.code.places import needs_sandbox

pytestmark = needs_sandbox
QUICK = Limits(seconds=3.0, cpu=1)
RIGHT = "def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(add(*map(int, input().split())))\n"


def _state() -> dict[str, object]:
    """What of the machine a program could change that nobody else does meanwhile."""
    mode = os.stat("/dev/null")
    library = os.stat(os.__file__)
    return {
        "null": (stat.S_IMODE(mode.st_mode), mode.st_uid),
        "library": (stat.S_IMODE(library.st_mode), library.st_uid, library.st_size, library.st_mtime),
        "shared": sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else [],
        "host": socket.gethostname(),
        "limits": psutil.Process().nice(),
    }


def _children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Local]:
    """A place of this test's own; all of it ends with the test."""
    place = Local()
    before, children = _state(), _children()
    yield place
    place.close()
    until = time.monotonic() + 10
    while (left := _children() - children) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    after = _state()
    assert after == {**before, "shared": after["shared"]}
    assert not [name for name in set(after["shared"]) - set(before["shared"]) if name.startswith(("psm_", "sem."))]


def _verdicts(attacks: list[Attack], place: Local) -> dict[tuple[str, str], Verdict]:
    """(name, form) -> verdict, each beside a program that is right."""
    asked = [(attack, form) for attack in attacks for form in attack.forms]
    programs = [(attack.program, read_tests(ROWS[form])) for attack, form in asked]
    verdicts = grade_all(programs, place, QUICK, every=True, seconds=3600.0)
    return {(attack.name, form): verdict for (attack, form), verdict in zip(asked, verdicts, strict=True)}


def _check(attacks: list[Attack], place: Local) -> None:
    found = _verdicts(attacks, place)
    gained = {key: verdict for key, verdict in found.items() if verdict.share}
    assert not gained
    assert all(verdict.why != "passed" and verdict.detail for verdict in found.values())
    # What stands after them is as it was before.
    honest = [(RIGHT, read_tests(row)) for row in ROWS.values()]
    assert [verdict.why for verdict in grade_all(honest, place, Limits(), every=True, seconds=100.0)] == ["passed"] * 3


def test_what_the_attacks_stand_behind_is_the_answer(place: Local) -> None:
    """Without what they must not be able to do, they solve the task: so their verdict says that they could not."""
    acts = ACTS[:3]
    programs = [
        (attack.program.replace("DONE = done()", "DONE = True"), read_tests(ROWS[attack.forms[0]])) for attack in acts
    ]
    assert {verdict.why for verdict in grade_all(programs, place, Limits(), every=True, seconds=100.0)} == {"passed"}


def test_attacks_gain_nothing(place: Local) -> None:
    _check([attack for attack in ATTACKS if attack.everyday], place)


@pytest.mark.exhaustive
def test_two_hundred_attacks_gain_nothing(place: Local) -> None:
    assert len({attack.program for attack in ATTACKS}) >= 200
    _check(list(ATTACKS), place)
