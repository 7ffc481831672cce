"""VADE: prompts by Thompson sampling of their success rate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.curriculum import draw_beta, highest
from cohort.recipes.vade import expected_information_gain, information_gain
from cohort.types import Batch

KEY = "curriculum/most_informative"
SEEDS = st.integers(0, 10_000)
STEPS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=3, unique_by=lambda x: x[0]))


def follow(steps: list[list[tuple[int, int]]], size: int = 6, **rates: float) -> Tensor:
    """Counts [size, 2] after steps of (row, right ones of eight)."""
    method = registry.method("vade", **rates)
    states = method.init(size=size)
    for step in (step for step in steps if step):
        rows = torch.tensor([row for row, _ in step]).repeat_interleave(8)
        right = torch.tensor([float(k < n) for _, n in step for k in range(8)], dtype=torch.float64)
        batch = Batch.of(torch.ones(len(rows), 1), group=rows, accuracy=right, rewards=right).with_rollouts(row=rows)
        states = method.bind(states).on_rollouts(batch, [])
    return states[KEY]["counts"]


@settings(max_examples=20, deadline=None)
@given(STEPS, st.floats(0, 0.9))
def test_counts_are_bounded(steps: list[list[tuple[int, int]]], rate: float) -> None:
    counts = follow(steps, lambda_selected=rate)
    assert bool((counts >= 0).all())
    assert float(counts.sum(1).max()) <= 8 / (1 - rate) + 1e-9


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_without_forgetting_it_counts_and_with_none_kept_the_last_group_is_all(
    steps: list[list[tuple[int, int]]],
) -> None:
    whole, last = torch.zeros(6, 2, dtype=torch.float64), torch.zeros(6, 2, dtype=torch.float64)
    for row, right in (each for step in steps for each in step):
        last[row] = torch.tensor([right, 8 - right])
        whole[row] += last[row]
    assert torch.equal(follow(steps, lambda_selected=1.0, lambda_unselected=1.0), whole)
    assert torch.equal(follow(steps, lambda_selected=0.0, lambda_unselected=1.0), last)


def test_what_is_not_drawn_is_forgotten() -> None:
    counts = follow([[(0, 8)], *[[(1, 4)]] * 4000], lambda_selected=1.0)
    assert float(counts[0, 0]) == pytest.approx(8 * 0.999**4000)
    assert float(counts[0, 0]) < 0.15


def test_hard_prompts_are_preferred_to_easy_ones() -> None:
    rates = torch.linspace(0, 1, 3001, dtype=torch.float64)
    gain = information_gain(rates)
    assert float(gain[600]) > float(gain[2400])
    assert int(gain.argmax()) == 1000
    assert float(gain.max()) == pytest.approx(4 / 27)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 20), st.floats(0, 20))
def test_the_expected_gain_is_that_of_the_posterior(alpha: float, beta: float) -> None:
    counts = torch.tensor([alpha, beta], dtype=torch.float64)
    p = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    density = torch.distributions.Beta(*(counts + 1)).log_prob(p).exp()
    want = (density * information_gain(p)).mean()
    assert torch.isclose(expected_information_gain(*counts), want, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 15))
def test_a_pick_is_fixed_by_the_seed_and_repeats_nothing(seed: int, count: int) -> None:
    method = registry.method("vade")
    states = {KEY: {"counts": torch.rand(10, 2, generator=torch.Generator().manual_seed(seed)).double() * 8}}
    picks = [method.bind(states).pick(count=count, rng=torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(picks[0][0], picks[1][0])
    assert picks[0][0].numel() == count
    assert len(set(picks[0][0][:10].tolist())) == min(count, 10)


def test_draws_are_those_of_the_posterior_and_ties_go_to_the_first() -> None:
    shapes = torch.tensor([1.0, 4.0, 9.5]), torch.tensor([1.0, 6.0, 1.2])
    drawn = torch.stack([draw_beta(*shapes, torch.Generator().manual_seed(k)) for k in range(4000)])
    made = torch.distributions.Beta(shapes[0].double(), shapes[1].double())
    assert torch.allclose(drawn.mean(0), made.mean, atol=0.02)
    assert torch.allclose(drawn.var(0), made.variance, atol=0.01)
    assert highest(torch.tensor([0.1, 0.5, 0.5, 0.2]), 3).tolist() == [1, 2, 3]


def test_the_agents_of_an_episode_count_together() -> None:
    """Each is a group of its own, of the same prompt."""
    method = registry.method("vade", lambda_selected=0.5)
    group, row = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([3, 3, 3, 3, 1])
    right = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    batch = Batch.of(torch.ones(5, 1), group=group, accuracy=right, rewards=right).with_rollouts(row=row)
    counts = method.bind(method.init(size=4)).on_rollouts(batch, [])[KEY]["counts"]
    assert counts.tolist() == [[0, 0], [1, 0], [0, 0], [2, 2]]
