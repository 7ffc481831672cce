"""Which groups' tokens are recorded, and how many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.training.subsample import AIM, SHARE, affordable, chosen

SECONDS = st.floats(1e-4, 10.0)


@given(fixed=SECONDS, each=st.floats(1e-5, 0.1), elapsed=st.floats(0.01, 1000.0), start=st.integers(1, 64))
def test_recording_settles_at_what_it_may_cost(fixed: float, each: float, elapsed: float, start: int) -> None:
    groups, most = float(start), 64
    for _ in range(4000):
        groups = affordable(groups, fixed + each * groups, elapsed, most)
        assert 1.0 <= groups <= most
    exact = (AIM * elapsed - fixed) / each
    # As close to the budget as whole steps of the rule come; the limit is approached slowly where fixed costs fill it.
    assert groups == pytest.approx(min(most, max(1.0, exact)), rel=0.05, abs=0.6)
    if exact >= 1.0:
        assert fixed + each * groups <= SHARE * elapsed


def test_more_is_recorded_step_by_step_and_less_at_once() -> None:
    assert affordable(1.0, 0.001, 1000.0, 64) == 2.0
    assert affordable(32.0, 1.0, 10.0, 64) == pytest.approx(32 * 0.075)
    assert affordable(32.0, 1.0, 0.0, 64) == 1.0
    assert affordable(1.0, 0.0, 10.0, 0) == 1.0


@given(signal=st.lists(st.floats(0, 10), min_size=1, max_size=12), step=st.integers(1, 50), seed=st.integers(0, 3))
def test_a_sample_has_strong_groups_and_random_ones_and_grows_by_adding(
    signal: list[float], step: int, seed: int
) -> None:
    everything = chosen(signal, len(signal), step=step, seed=seed)
    assert sorted(everything) == list(range(len(signal)))
    for count in range(1, len(signal) + 1):
        assert chosen(signal, count, step=step, seed=seed) == everything[:count]
    # Every second one is the strongest that was left.
    for place in range((step + 1) % 2, len(signal), 2):
        left = everything[place:]
        assert signal[everything[place]] == max(signal[group] for group in left)


def test_what_is_random_differs_from_step_to_step_and_is_the_same_again() -> None:
    signal = [1.0] * 16
    drawn = [tuple(chosen(signal, 1, step=step, seed=0)) for step in range(2, 40, 2)]
    assert len(set(drawn)) > 5
    assert drawn == [tuple(chosen(signal, 1, step=step, seed=0)) for step in range(2, 40, 2)]
