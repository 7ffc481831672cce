"""Programs whose verdict is known: they get it, and get it again."""

from __future__ import annotations

import random
import time

import pytest

from cohort.rewards.code.grading import Local, Verdict, grade_all
from cohort.rewards.code.program import program_of
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import read_tests
from tests.rewards.code.places import needs_sandbox
from tests.rewards.code.procedural import Program, programs

pytestmark = needs_sandbox


def _verdicts(asked: list[Program]) -> list[Verdict]:
    place = Local()
    try:
        given = [(program_of(each.text), read_tests(each.row)) for each in asked]
        return grade_all(given, place, Limits(), every=True, seconds=3600.0)
    finally:
        place.close()


def _check(count: int) -> float:
    asked = list(programs(count))
    begin = time.perf_counter()
    first = _verdicts(asked)
    seconds = time.perf_counter() - begin
    assert [(verdict.why == "passed") for verdict in first] == [each.right for each in asked]
    assert {each.right for each in asked} == {True, False}
    # In another order, beside other programs.
    order = random.Random(1).sample(range(count), count)
    again = dict(zip(order, _verdicts([asked[i] for i in order]), strict=True))
    assert [again[i] for i in range(count)] == first
    return count / seconds


def test_programs_get_the_verdict_that_is_known_of_them() -> None:
    _check(60)


@pytest.mark.exhaustive
def test_a_thousand_programs_get_the_same_verdict_twice() -> None:
    rate = _check(1000)
    print(f"{rate:.0f} programs a second")
