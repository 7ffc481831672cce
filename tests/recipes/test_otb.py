"""OTB: a baseline for every token, weighted by the energy gathered so far."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.recipes.otb import baseline, energy, returns_of, squared_mass
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def scored(seed: int, groups: tuple[int, ...] = (4, 3)) -> Batch:
    batch = random_batch(seed, groups=groups)
    rng = torch.Generator().manual_seed(seed)
    mass = torch.rand(batch.mask.shape, generator=rng, dtype=torch.float64) ** 2
    return batch.with_tokens(sum_pi_squared=mass)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_weighted_advantages_of_a_position_sum_to_zero(seed: int) -> None:
    batch = scored(seed)
    weight, returns = energy(batch, weight_high=None), returns_of(batch)
    gain = torch.where(batch.mask, returns - baseline(batch, returns, weight, eps=1e-12, zero_tail=False), 0.0)
    place = torch.where(batch.mask, batch.mask.cumsum(1) - 1, -1)
    for group in range(2):
        for j in range(batch.mask.shape[1]):
            here = (place == j) & (batch.groups.index == group)[:, None]
            if int(here.sum()) > 1:
                assert abs(float((weight * gain)[here].sum())) < 1e-6


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_equal_rewards_leave_nothing_but_the_tails(seed: int) -> None:
    batch = scored(seed)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, 0.7))
    weight, returns = energy(batch, weight_high=None), returns_of(batch)
    gain = returns - baseline(batch, returns, weight, eps=1e-12, zero_tail=True)
    count = batch.mask.sum(1)
    for i in range(batch.size):
        others = [int(count[j]) for j in range(batch.size) if j != i and batch.groups.index[j] == batch.groups.index[i]]
        shared = min(int(count[i]), max(others))
        own = gain[i][batch.mask[i]]
        assert torch.allclose(own[:shared], torch.zeros(shared, dtype=torch.float64), atol=1e-5)
        assert torch.allclose(own[shared:], torch.full_like(own[shared:], 0.7))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_mass_is_the_sum_of_squares(seed: int) -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.allclose(squared_mass(logits), (logits.softmax(-1) ** 2).sum(-1))
