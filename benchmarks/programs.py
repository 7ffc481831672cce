"""Programs a second that the reward `code` judges, each with three tests.

    python -m benchmarks.programs                 200 programs of each form
    python -m benchmarks.programs --programs 1000 --json

The forms are those of docs/rewards.md: standard input and output, calls of a function, asserts that are read as calls, and test
code that needs an interpreter of its own. Half of the programs are right. Sandboxes are warm, as in all steps of a run but the
first.
"""

from __future__ import annotations

import argparse
import json
import time

from cohort.rewards.code.grading import Local, grade_all
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import read_tests

FUNCTION = "def double(x):\n    return 2 * x{wrong}\n"
ROWS = {
    "stdin": {"tests": [{"input": f"{n}\n", "output": f"{2 * n}\n"} for n in (1, 20, 300)]},
    "cases": {"entry_point": "double", "cases": [[[n], 2 * n] for n in (1, 20, 300)]},
    "asserts": {"test_list": [f"assert double({n}) == {2 * n}" for n in (1, 20, 300)]},
    "test code": {"test_code": "for n in (1, 20, 300):\n    assert double(n) == 2 * n\n"},
}


def measured(form: str, count: int) -> float:
    """Programs a second."""
    tests, place = read_tests(ROWS[form]), Local()
    text = FUNCTION + ("print(double(int(input())))\n" if form == "stdin" else "")
    programs = [(text.format(wrong=" + 1" * (n % 2)) + f"# {n}\n", tests) for n in range(count)]
    try:
        grade_all(programs[: 2 * place.at_once], place, Limits(), every=True, seconds=60.0)
        begin = time.perf_counter()
        verdicts = grade_all(programs, place, Limits(), every=True, seconds=3600.0)
        seconds = time.perf_counter() - begin
    finally:
        place.close()
    assert [verdict.why == "passed" for verdict in verdicts] == [n % 2 == 0 for n in range(count)]
    return count / seconds


def main() -> None:
    """Measure every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {form: measured(form, asked.programs) for form in ROWS}
    if asked.json:
        print(json.dumps({form: round(rate, 1) for form, rate in found.items()}))
        return
    for form, rate in found.items():
        print(f"{form:10} {rate:6.0f} programs a second")


if __name__ == "__main__":
    main()
