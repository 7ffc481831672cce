"""What a reward function may return."""

from __future__ import annotations

import array
import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from cohort.rewards.values import LARGEST, BadValueError, check


class Unreadable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0.5, None], [1.0, 0.5, None]),
        ((1, 0.5, None), [1.0, 0.5, None]),
        ([True, False, -2], [1.0, 0.0, -2.0]),
        (np.array([1.0, 0.5, 0.25]), [1.0, 0.5, 0.25]),
        (np.array([1, 0, 2], dtype=np.int8), [1.0, 0.0, 2.0]),
        (np.array([True, False, True]), [1.0, 0.0, 1.0]),
        (np.array([1.0, None, 0.5], dtype=object), [1.0, None, 0.5]),
        ([np.float32(0.5), np.bool_(True), np.int64(3)], [0.5, 1.0, 3.0]),
        ([np.array(0.5), np.array([1.0]), 2], [0.5, 1.0, 2.0]),
        (torch.tensor([1.0, 0.5, 0.25], dtype=torch.bfloat16), [1.0, 0.5, 0.25]),
        (torch.tensor([1.0, 0.5, 0.25], requires_grad=True), [1.0, 0.5, 0.25]),
        ([torch.tensor(1.0), torch.tensor(True), torch.tensor([2])], [1.0, 1.0, 2.0]),
        ([torch.tensor(0.5, requires_grad=True), torch.ones(1, requires_grad=True), 0], [0.5, 1.0, 0.0]),
        ([Decimal("0.25"), Fraction(1, 4), 1e14], [0.25, 0.25, 1e14]),
        ((x for x in (1, 2, 3)), [1.0, 2.0, 3.0]),
        (map(float, "123"), [1.0, 2.0, 3.0]),
        ({"a": 1, "b": 2, "c": 3}.values(), [1.0, 2.0, 3.0]),
        (range(3), [0.0, 1.0, 2.0]),
        (array.array("d", [1, 2, 3]), [1.0, 2.0, 3.0]),
    ],
)
def test_numbers_of_every_usual_kind_become_floats(values, expected):
    out = check(values, 3)
    assert out == expected
    assert all(value is None or type(value) is float for value in out)


def test_no_completions_have_no_values():
    assert check([], 0) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "returned NoneType, not a list of 2 numbers"),
        (1.0, "returned float, not a list of 2 numbers"),
        ({0: 1.0, 1: 1.0}, "returned dict, not a list of 2 numbers"),
        ({1.0, 2.0}, "returned set, not a list of 2 numbers"),
        ("ab", "returned str, not a list of 2 numbers"),
        (b"ab", "returned bytes, not a list of 2 numbers"),
        (bytearray(b"ab"), "returned bytearray, not a list of 2 numbers"),
        (memoryview(b"ab"), "returned memoryview, not a list of 2 numbers"),
        (list, "returned type, not a list of 2 numbers"),
        (torch.tensor(1.0), "returned Tensor, not a list of 2 numbers: it has no dimension"),
        (np.float32(1.0), "returned float32, not a list of 2 numbers: it has no dimension"),
        (torch.ones(2, device="meta"), "returned Tensor, not a list of 2 numbers: NotImplementedError"),
        ([], "returned 0 values for 2 completions"),
        ([1.0], "returned 1 values for 2 completions"),
        ([1.0, 2.0, 3.0], "returned 3 values for 2 completions"),
        (iter([1.0]), "returned 1 values for 2 completions"),
        (itertools.count(), "returned more than 2 values for 2 completions"),
        (np.zeros(3), "returned 3 values for 2 completions"),
        ([1.0, "1"], r"returned '1' \(str\) for completion 2, which is no number"),
        ([b"1", 1.0], r"returned b'1' \(bytes\) for completion 1, which is no number"),
        ([[1.0], [2.0]], r"returned \[1.0\] \(list\) for completion 1, which is no number"),
        (np.zeros((2, 1)), r"returned \[0.0\] \(list\) for completion 1, which is no number"),
        (torch.zeros(2, 2), r"returned \[0.0, 0.0\] \(list\) for completion 1, which is no number"),
        ([torch.zeros(2), 1.0], r"returned tensor\(\[0., 0.\]\) \(Tensor\) for completion 1, which is not one number"),
        ([1.0, 1j], r"returned 1j \(complex\) for completion 2, which is no number"),
        ([1.0, float("nan")], r"returned nan \(float\) for completion 2, which is no number"),
        ([1.0, Decimal("nan")], r"returned Decimal\('NaN'\) \(Decimal\) for completion 2, which is no number"),
        ([1.0, Decimal("sNaN")], r"\(Decimal\) for completion 2, which is no number"),
        ([float("inf"), 1.0], r"returned inf \(float\) for completion 1, which is beyond 1e\+15"),
        ([float("-inf"), 1.0], r"returned -inf \(float\) for completion 1, which is beyond 1e\+15"),
        ([1e31, 1.0], r"returned 1e\+31 \(float\) for completion 1, which is beyond 1e\+15"),
        ([10**400, 1.0], r"returned 10+\.\.\. \(int\) for completion 1, which is beyond 1e\+15"),
        ([Fraction(10**400), 1.0], r"\(Fraction\) for completion 1, which is beyond"),
        (torch.tensor([0.0, float("nan")]), r"returned nan \(float\) for completion 2"),
        ([object(), 1.0], r"\(object\) for completion 1, which is no number"),
        ([Unreadable(), 1.0], r"returned <its repr fails: RuntimeError> \(Unreadable\) for completion 1"),
    ],
)
def test_what_is_no_list_of_finite_numbers_is_refused_with_its_type_and_row(values, message):
    with pytest.raises(BadValueError, match=message):
        check(values, 2)


def test_the_largest_rewards_still_differ_from_each_other_in_float32():
    values = torch.tensor(check([LARGEST, LARGEST / 2, -LARGEST], 3), dtype=torch.float32)
    assert torch.isfinite((values - values.mean()).square().sum())
