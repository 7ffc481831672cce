"""pass@k and maj@k."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.analysis.at_k import majority_at_k, pass_at_k, powers


@st.composite
def outcomes(draw):
    """Right and wrong completions of a problem, and how many of them are looked at."""
    correct = draw(st.lists(st.booleans(), min_size=1, max_size=9))
    return correct, draw(st.integers(1, len(correct)))


@settings(deadline=None)
@given(outcomes())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_completion(case):
    correct, k = case
    subsets = list(itertools.combinations(correct, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(sum(correct), len(correct), k) == pytest.approx(share, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_pass_at_k_begins_at_the_mean_and_rises_with_k(samples, data):
    correct = data.draw(st.integers(0, samples))
    values = [pass_at_k(correct, samples, k) for k in range(1, samples + 1)]
    assert values[0] == pytest.approx(correct / samples)
    assert values[-1] == float(correct > 0)
    assert all(0.0 <= low <= high <= 1.0 for low, high in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("answers", "correct", "k", "expected"),
    [
        # one vote
        (["1"], [True], 1, 1.0),
        (["2"], [False], 1, 0.0),
        # the most frequent answer wins, right or wrong
        (["1", "2", "1", "3"], [True, False, True, False], 4, 1.0),
        (["1", "2", "2", "3"], [True, False, False, False], 4, 0.0),
        # the earliest wins a tie
        (["1", "2", "2", "1"], [True, False, False, True], 4, 1.0),
        (["2", "1", "1", "2"], [False, True, True, False], 4, 0.0),
        (["1", "2"], [True, False], 2, 1.0),
        # completions without an answer do not vote
        ([None, None, None, "1"], [False, False, False, True], 4, 1.0),
        ([None, None, "2", "1"], [False, False, False, True], 4, 0.0),
        ([None, None], [False, False], 2, 0.0),
        # several runs of k, and what is left over is not used
        (["1", "1", "2", "2"], [True, True, False, False], 2, 0.5),
        (["1", "1", "2", "2", "1"], [True, True, False, False, True], 2, 0.5),
        (["2", "1", "1", "2", "1", "1"], [False, True, True, False, True, True], 3, 1.0),
    ],
)
def test_majority_at_k(answers, correct, k, expected):
    assert majority_at_k(answers, correct, k) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=12))
def test_majority_at_one_is_the_share_of_correct_completions(answers):
    correct = [answer == "1" for answer in answers]
    assert majority_at_k(answers, correct, 1) == pytest.approx(sum(correct) / len(correct))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])],
)
def test_powers_end_with_the_number_of_samples(samples, expected):
    assert powers(samples) == expected
