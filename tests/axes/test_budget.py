"""Budgets that are handed out in rounds."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.axes.budget import best_plan, expect_narrowing, narrowing_by_one, share_in_rounds, spread_of

REWARDS = st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=6), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(REWARDS, st.integers(0, 12), st.floats(0.01, 0.5), st.floats(0, 1))
def test_all_of_a_share_is_dealt_out(rewards: list[list[float]], share: int, alpha: float, explore: float) -> None:
    spreads, given_ = list(map(spread_of, rewards)), list(map(len, rewards))
    counts = expect_narrowing(spreads, given_, share, alpha=alpha, explore=explore)
    assert sum(counts) == share
    assert min(counts) >= 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.5))
def test_one_more_narrows_and_more_so_where_rewards_vary(n: int, low: float, high: float, alpha: float) -> None:
    low, high = sorted((low, high))
    assert narrowing_by_one(n, 0.0, alpha) == 0
    assert 0 <= narrowing_by_one(n, low, alpha) <= narrowing_by_one(n, high, alpha)
    assert narrowing_by_one(1, high, alpha) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(2, 8), st.integers(1, 4))
def test_rounds_end_with_all_given(count: int, group_size: int, first: int, rounds: int) -> None:
    given_, total, asked = torch.zeros(count, dtype=torch.int64), count * group_size, 0
    while True:
        share = share_in_rounds(given_, total, first=first, rounds=rounds)
        if isinstance(share, int):
            assert share > 0
            share = torch.tensor(expect_narrowing([0.0] * count, given_.tolist(), share, alpha=0.1, explore=0.1))
        elif not share.any():
            break
        given_, asked = given_ + share, asked + 1
    assert int(given_.sum()) == total
    assert int(given_.min()) >= min(first, group_size)
    assert asked <= rounds + 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 2), st.integers(2, 5))
def test_the_best_plan_is_that_of_a_search_through_all(seed: int, count: int, low: int, high: int) -> None:
    table = torch.rand(count, high + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for total in range(count * low, count * high + 1):
        plan = best_plan(table, total, low=low)
        assert sum(plan) == total
        assert all(low <= b <= high for b in plan)
        worth = [
            sum(float(row[b]) for row, b in zip(table, each, strict=True))
            for each in product(range(low, high + 1), repeat=count)
            if sum(each) == total
        ]
        own = sum(float(row[b]) for row, b in zip(table, plan, strict=True))
        assert own == pytest.approx(max(worth))


def test_a_total_outside_the_bounds_is_an_error() -> None:
    with pytest.raises(ValueError, match="9 rollouts for 2 prompts"):
        best_plan(torch.zeros(2, 4), 9, low=1)
