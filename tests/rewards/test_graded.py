"""Answers that are right by degrees."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.rewards.builtin import KINDS
from cohort.rewards.graded import as_order, count, order_accuracy, puzzle, relative, relative_accuracy


@pytest.mark.parametrize(
    ("said", "value"), [("10", 1.0), ("10.5 m", 1.0), ("12.5", 0.6), ("15", 0.1), ("16", 0.0), ("far", 0.0)]
)
def test_relative_accuracy_has_ten_levels(said, value):
    assert relative()([said], ["10"]) == [pytest.approx(value)]


def test_levels_can_be_named():
    # 11 levels are not at 0.6 but at 0.59.
    assert relative("11")(["12"], [10]) == [pytest.approx(7 / 11)]
    for argument in ("1", "0.5", "x"):
        with pytest.raises(UsageError, match="number of levels"):
            KINDS["relative"].make(argument)


@given(st.fractions(0, 50), st.fractions(1, 20), st.integers(2, 20))
def test_relative_accuracy_falls_with_the_error(said, truth, levels):
    value = relative_accuracy(said, truth, levels)
    assert 0 <= value <= relative_accuracy((said + truth) / 2, truth, levels) <= relative_accuracy(truth, truth) == 1
    assert value == relative_accuracy(said * 3, truth * 3, levels)


def test_a_truth_of_nothing_has_no_relative_error():
    assert [relative_accuracy(Fraction(n), Fraction(0)) for n in (0, 1)] == [1.0, 0.0]


def test_counts_that_are_nearly_right_earn_a_little():
    assert count(["4", "3", "6", "7", "many", "4.5"], [4, 4, 4, 4, 4, 4]) == [1.0, 0.3, 0.1, 0.0, 0.0, 0.3]
    assert count(["4"], [None]) == [None]


@given(st.permutations(range(1, 7)), st.permutations(range(1, 7)))
def test_an_order_earns_the_share_of_its_places(said, gold):
    value = order_accuracy(", ".join(map(str, said)), gold)
    assert value == sum(a == b for a, b in zip(said, gold, strict=True)) / 6
    assert value != pytest.approx(5 / 6)


@pytest.mark.parametrize("said", ["1,2", "1,2,3,3", "1,2,3,5", "1,2,3,4,5", "1 2 3 4", "", "4,3,2,one", "²,1,3,4"])
def test_what_is_no_order_earns_nothing(said):
    assert order_accuracy(said, [1, 2, 3, 4]) == 0


def test_solutions_of_all_puzzles():
    said = ["<answer>2, 1,3,4</answer>", "c ", "<think>90</think> 180", "1,2"]
    assert puzzle(said, ["1,2,3,4", "C", 180, None]) == [0.5, 1.0, 1.0, None]
    assert as_order("1") is None
    assert as_order("2,1") == [2, 1]
