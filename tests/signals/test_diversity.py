"""How different completions are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.signals.diversity import bleu, distinct, edit_distance, mean_edit_distance, self_bleu

TOKENS = st.lists(st.integers(0, 4), max_size=9)


def slow_distance(a: list[int], b: list[int]) -> int:
    """By its definition, recursively."""
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_the_edit_distance_is_that_of_its_definition(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == slow_distance(a, b) == edit_distance(b, a)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=3, max_size=9), st.integers(2, 4))
def test_equal_completions_are_not_diverse(tokens: list[int], count: int) -> None:
    same = [tokens] * count
    assert self_bleu(same) == pytest.approx(1.0)
    assert mean_edit_distance(same) == 0
    assert distinct(same) <= 1 / count + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.lists(TOKENS, max_size=4))
def test_they_lie_in_their_ranges_also_for_empty_and_short_completions(completions: list[list[int]]) -> None:
    assert 0 <= self_bleu(completions) <= 1 + 1e-12
    assert 0 <= distinct(completions) <= 1
    assert mean_edit_distance(completions) <= 9
    assert self_bleu(completions[:1]) == mean_edit_distance(completions[:1]) == 0


def test_bleu_is_short_of_what_is_too_short() -> None:
    assert bleu([], [[1, 2]]) == 0
    assert bleu([3], [[1, 2]]) == 0
    assert bleu([1, 2, 3], [[1, 2, 3, 4, 5]]) < bleu([1, 2, 3], [[1, 2, 3, 4]]) < bleu([1, 2, 3], [[1, 2, 3]]) == 1
