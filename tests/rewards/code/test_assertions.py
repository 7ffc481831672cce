from __future__ import annotations

from typing import Any

import pytest

from cohort.rewards.code.assertions import Unreadable, read


def _holds(code: str, *values: Any, entry: str | None = None) -> bool:
    (assertion,) = read(code, entry)
    return assertion.holds(values)


@pytest.mark.parametrize(
    ("code", "values", "right"),
    [
        ("assert f(1) == [2, 3]", [[2, 3]], True),
        ("assert f(1) == [2, 3]", [(2, 3)], False),
        ("assert (2, 3) == f(1)", [(2, 3)], True),
        ("assert f(1) is None", [None], True),
        ("assert f(1) is True", [1], False),
        ("assert not f(1)", [[]], True),
        ("assert f(1) != 3", [3], False),
        ("assert 1 < f(1) <= 3", [3], True),
        ("assert f(1) in (3, 4)", [3], True),
        ("assert 3 not in f(1)", [[3]], False),
        ("assert abs(f(1) - 1.5) < 1e-3", [1.5001], True),
        ("assert abs(f(1) - 1.5) < 1e-3", ["1.5"], False),
        ("assert set(f(1)) == {1, 2}", [[2, 1, 1]], True),
        ("assert sorted(f(1), reverse=True) == [2, 1]", [(1, 2)], True),
        ("assert len(f(1)) == 2 and f(1)[0] == 'a'", [["a", "b"], ["a", "b"]], True),
        ("assert tuple(f(1)) == (1,)", [[1]], True),
        ("assert round(f(1), 2) == 3.14", [3.14159], True),
        ("assert f(1) + f(2) == 5", [2, 3], True),
        ("assert f('a' * 3, -1, k=[0] * 2) == {'a': {1}}", [{"a": {1}}], True),
        ("import math\nassert math.isclose(f(1), 2.0, rel_tol=1e-3)", [2.001], True),
        ("assert isinstance(f(1), int)", [True], True),
        ("x = [1, 2]\nassert f(x) == x", [[1, 2]], True),
        ("assert f(1) == list(range(3))", [[0, 1, 2]], True),
        ("assert f(1) == 10 ** 2 - 1", [99], True),
    ],
)
def test_an_assert_is_read_as_calls_and_a_comparison(code: str, values: list[Any], right: bool) -> None:
    assert _holds(code, *values) is right


def test_the_calls_of_an_assert_are_told_in_their_order() -> None:
    (assertion,) = read("assert f(1, b=[2]) + g({3}) == Solution().h((4,))", None)
    assert assertion.calls == (("f", (1,), {"b": [2]}), ("g", ({3},), {}), ("Solution.h", ((4,),), {}))


def test_check_and_test_functions_are_read() -> None:
    check = (
        "METADATA = {'a': 1}\n\ndef check(candidate):\n    '''doc'''\n    x = 2\n"
        "    assert candidate(x) == 3\n    assert True, 'fine'\ncheck(f)\n"
    )
    assert [each.calls for each in read(check, "f")] == [(("f", (2,), {}),)]
    tests = (
        "from solution import f\ndef test_a():\n    assert f(1) == 2\ndef test_b():\n    y = 3\n    assert f(y) == 4\n"
    )
    assert [each.calls for each in read(tests, None)] == [(("f", (1,), {}),), (("f", (3,), {}),)]


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(3):\n    assert f(i) == i",
        "x = f(1)\nassert x == 2",
        "assert f(lambda x: x) == 1",
        "assert f(g(1)) == 2",
        "assert f(1).a == 2",
        "assert f(1).a() == 2",
        "from collections import Counter\nassert f(1) == Counter('a')",
        "from heapq import nlargest\nassert nlargest(1, [2]) == f(1)",
        "assert eval('1') == f(1)",
        "assert open('/etc/passwd') == f(1)",
        "assert [x for x in f(1)] == [2]",
        "assert f(*[1]) == 2",
        "assert f(**{'a': 1}) == 2",
        "assert f(10 ** 10 ** 10) == 1",
        "assert f('a' * 10 ** 9) == 1",
        "with x:\n    assert f(1) == 2",
        "try:\n    f(1)\nexcept ValueError:\n    pass",
        "def check(candidate):\n    assert candidate(1) == 2",
        "assert f(1) if 1 else 2",
        "f(1)",
        "",
        "x = 1",
        "from solution import f as g\nassert g(1) == 2",
        "@mark\ndef test_a():\n    assert f(1) == 2",
        "import numpy as np\nassert f(1) == np.array([1])",
    ],
)
def test_what_is_more_than_calls_and_literals_is_left_to_an_interpreter(code: str) -> None:
    with pytest.raises(Unreadable):
        read(code, None)


def test_a_value_that_makes_work_or_does_not_fit_is_wrong() -> None:
    for code, value in (
        ("assert set(f(1)) == {1}", [i * ((1 << 61) - 1) for i in range(100_000)]),
        ("assert f(1) * 2.0 == 1", 1 << (1 << 20)),
        ("assert str(f(1)) == '1'", 1 << (1 << 20)),
        ("assert f(1) * 100 == 'x'", "x" * 1_000_000),
        ("assert f(1) % (1,) == 'x'", "%999999999d"),
        ("assert int(f(1)) == 3", "3" * 10_000),
        ("assert sum(f(1)) == 3", "abc"),
        ("assert f(1)[0][0] == 3", 5),
        ("assert f(1) < 3", None),
        ("assert f(1) == 3", float("nan")),
    ):
        assert _holds(code, value) is False
