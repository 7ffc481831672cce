from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from cohort.rewards.code.shapes import BadTests, has_tests, read_tests, reference

PROMPT = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """The sum."""\n'
STREAMS = [("1 2\n", "3\n"), ("4 5\n", "9\n")]
PAIRS: dict[str, Any] = {"inputs": [given for given, _ in STREAMS], "outputs": [expected for _, expected in STREAMS]}
LISTED = [{"input": given, "output": expected} for given, expected in STREAMS]


@pytest.mark.parametrize(
    "row",
    [
        {"tests": LISTED},
        {"tests": json.dumps(LISTED)},
        {"tests": [{**each, "testtype": "stdin", "metadata": {"func_name": None}} for each in LISTED]},
        {"tests": [{**each, "type": "stdin_stdout", "fn_name": None} for each in LISTED]},
        {"tests": [{"input": ["1 2"], "output": ["3"]}, {"input": ["4 5"], "output": ["9"]}]},
        {"input_output": json.dumps(PAIRS), "starter_code": ""},
        {"input_output": PAIRS},
        {"public_test_cases": json.dumps(LISTED[:1]), "private_test_cases": json.dumps(LISTED[1:]), "metadata": "{}"},
        {"public_tests": {"input": ["1 2"], "output": ["3"]}, "private_tests": {"input": ["4 5"], "output": ["9"]}},
        {"official_tests": LISTED},
        {
            "verification_info": json.dumps(
                {"language": "python", "test_cases": [{"type": "stdin_stdout", **each} for each in LISTED]}
            )
        },
        {"ground_truth": json.dumps(PAIRS)},
        {"reward_model": {"style": "rule", "ground_truth": json.dumps(PAIRS)}},
        {"test_cases": LISTED},
    ],
)
def test_streams_are_read_from_what_data_sets_write(row: dict[str, Any]) -> None:
    assert has_tests(row)
    tests = read_tests(row)
    assert [(a.strip(), b.strip()) for a, b in tests.streams] == [(a.strip(), b.strip()) for a, b in STREAMS]
    assert not tests.cases + tests.scripts


@pytest.mark.parametrize(
    "row",
    [
        {"entry_point": "total", "cases": [[[[1, 2]], 3], [[[]], 0]]},
        {"entry_point": "total", "cases": [[{"xs": [1, 2]}, 3], [{"xs": []}, 0]]},
        {"entry_point": "total", "cases": json.dumps([[[[1, 2]], 3], [[[]], 0]])},
        {"input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2]], [[]]], "outputs": [[3], [0]]})},
        {"input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2]], [[]]], "outputs": [3, 0]})},
        {
            "public_test_cases": json.dumps(
                [
                    {"input": "[1, 2]", "output": "3", "testtype": "functional"},
                    {"input": "[]", "output": "0", "testtype": "functional"},
                ]
            ),
            "metadata": json.dumps({"func_name": "total"}),
        },
        {
            "verification_info": {
                "language": "python",
                "test_cases": [
                    {"type": "function_call", "fn_name": "total", "input": [[1, 2]], "output": [3]},
                    {"type": "function_call", "fn_name": "total", "input": [[]], "output": [0]},
                ],
            }
        },
        {
            "prompt": PROMPT,
            "entry_point": "total",
            "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
        },
        {
            "test_list": ["assert total([1, 2]) == 3", "assert total([]) == 0"],
            "test_setup_code": "",
            "challenge_test_list": [],
        },
        {
            "test_list": ["assert total([1, 2]) == 3"],
            "test_imports": ["import math"],
            "challenge_test_list": ["assert total([]) == 0"],
        },
        {
            "test": "from solution import total\n\ndef test_a():\n    assert total([1, 2]) == 3\n\n"
            "def test_b():\n    assert total([]) == 0\n"
        },
        {"test_cases": ["assert total([1, 2]) == 3", "assert total([]) == 0"]},
        {"tests": "assert total([1, 2]) == 3\nassert total([]) == 0\n"},
        {"test_code": "assert total([1, 2]) == 3\nassert total([]) == 0\n"},
        {"ground_truth": json.dumps({"functional": "assert total([1, 2]) == 3\nassert total([]) == 0\n"})},
        {"reward_model": {"ground_truth": ["assert total([1, 2]) == 3", "assert total([]) == 0"]}},
    ],
)
def test_calls_are_read_from_what_data_sets_write(row: dict[str, Any]) -> None:
    assert has_tests(row)
    tests = read_tests(row)
    assert not tests.scripts + tests.streams
    (first, second) = tests.cases
    assert [call[0] for case in tests.cases for call in case.calls] == ["total", "total"]
    assert [first.holds([value]) for value in (3, 4, "3", None)] == [True, False, False, False]
    assert second.holds([0])
    assert tests.stub == (PROMPT if "prompt" in row else "")


def test_private_tests_of_live_code_bench_are_unpacked_and_run_nothing() -> None:
    def packed(value: Any) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()

    assert read_tests({"private_test_cases": packed(json.dumps(LISTED))}).streams == STREAMS
    with pytest.raises(BadTests, match="cannot be unpacked"):
        read_tests({"private_test_cases": packed(print)})
    with pytest.raises(BadTests, match="cannot be unpacked"):
        read_tests({"private_test_cases": "no base64"})


def test_test_code_beyond_calls_is_kept_for_an_interpreter() -> None:
    loop = "for x in range(3):\n    assert f(x) == x\n"
    tests = read_tests({"test_code": loop, "tests": LISTED, "entry_point": "f", "cases": [[[1], 1]]})
    assert (tests.scripts, len(tests.streams), len(tests.cases), tests.total) == ([loop], 2, 1, 4)
    unit = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(1), 1)\n"
    assert read_tests({"test": unit, "entry_point": "f"}).scripts == [unit]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"tests": [{"input": "1"}]}, r"tests\[1\] must have 'input' and 'output'"),
        ({"tests": [{"input": "1", "output": 3}]}, r"tests\[1\]: the output must be a text, not 3"),
        ({"tests": [{"input": None, "output": "3"}]}, r"the input must be a text"),
        ({"tests": [5]}, r"tests\[1\] must have"),
        (
            {"tests": [{"input": "1", "output": "2"}, {"input": "1", "output": "3"}]},
            "for the input '1' they expect '2' and '3'",
        ),
        ({"tests": "[not json"}, "'tests' is no JSON"),
        ({"tests": 5}, "must be a list of tests, not 5"),
        ({"cases": [[[1], 1]]}, "no 'entry_point'"),
        ({"cases": [[1, 2, 3]], "entry_point": "f"}, r"cases\[1\] must be a pair"),
        ({"cases": [[1, 2]], "entry_point": "f"}, r"cases\[1\]: arguments must be a list"),
        ({"cases": [[[1], 2]], "entry_point": "1f"}, "entry_point must be the name of a function, not '1f'"),
        ({"cases": [[[1], 2]], "entry_point": 7}, "entry_point must be the name of a function, not 7"),
        ({"test_code": "assert f(1 == 2"}, r"'test_code' is no Python, line 1 \('assert f\(1 == 2'\)"),
        ({"test_code": "x = 1"}, "asserts nothing"),
        ({"test_code": "def test_a():\n    pass"}, "asserts nothing"),
        ({"test_list": ["assert f(1) = 2"]}, "'test_list' is no Python"),
        ({"test_list": [5]}, "'test_list' must be a text"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "1 inputs, but 0 outputs"),
        ({"input_output": {"inputs": "1"}}, "must have lists 'inputs' and 'outputs'"),
        ({"input_output": {"inputs": [5], "outputs": ["5"]}}, r"input_output\[1\]: the input must be a text"),
        ({"input_output": {"fn_name": "f", "inputs": ["{"], "outputs": ["5"]}}, "the input' is no JSON"),
        ({"input_output": {"inputs": [], "outputs": []}}, "there is no test in input_output"),
        ({"tests": LISTED, "setup": "def"}, "'setup' is no Python"),
        ({"verification_info": "5"}, "'verification_info' must be a mapping"),
        ({"tests": [{"input": "1", "output": "2", "testtype": "functional"}]}, "the function's name must be the name"),
    ],
)
def test_tests_that_no_program_can_pass_are_told(row: dict[str, Any], says: str) -> None:
    assert has_tests(row)
    with pytest.raises(BadTests, match=says):
        read_tests(row)


def test_a_test_may_stand_there_twice() -> None:
    twice = [{"input": "1", "output": "2.50"}, {"input": "1", "output": "2.5\n"}]
    assert len(read_tests({"tests": twice}).streams) == 2


def test_rows_of_other_tasks_have_no_tests() -> None:
    for row in (
        {},
        {"tests": None, "test_code": "", "cases": []},
        {"ground_truth": "42"},
        {"ground_truth": 42},
        {"ground_truth": "\\frac{1}{2}"},
        {"reward_model": {"style": "rule", "ground_truth": "72"}},
        {"test": "yes"},
        {"answer": "5", "solution": "because"},
    ):
        assert not has_tests(row)


def test_a_rows_own_solution_is_a_program() -> None:
    assert reference({"canonical_solution": "    return sum(xs)\n"}) == "    return sum(xs)\n"
    assert reference({"solution": "As follows:\n```python\nprint(1)\n```"}) == "print(1)\n"
    assert reference({"code": "def f(): pass", "test_list": ["assert f() is None"]}) == "def f(): pass"
    assert reference({"code": "def f(): pass"}) is None
    assert reference({"solution": "One sees that it is so."}) is None
    assert reference({"solution": None}) is None
