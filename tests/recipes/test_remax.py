"""ReMax: the greedy answer's reward is the baseline."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.remax import above_greedy, beside_greedy
from cohort.types import Batch
from tests.environments.worlds import Guess, Worlds
from tests.helpers import random_batch
from tests.rollouts.test_runner import requests
from tests.rollouts.test_sampler import lent

SEEDS = st.integers(0, 10_000)


def beside(batch: Batch, greedy: torch.Tensor) -> Batch:
    return batch.with_rollouts(greedy_rewards=greedy)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-2, 2))
def test_a_constant_on_all_rewards_changes_nothing(seed: int, shift: float) -> None:
    batch = random_batch(seed)
    greedy = torch.rand(batch.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    plain = above_greedy(beside(batch, greedy))
    moved = above_greedy(beside(batch.replace(rewards=batch.rewards + shift), greedy + shift))
    assert torch.allclose(plain, moved)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.5, 1))
def test_the_last_token_is_discounted_once_and_without_discount_all_are_equal(seed: int, gamma: float) -> None:
    batch = random_batch(seed)
    nothing = torch.zeros(batch.size, dtype=torch.float64)
    found = above_greedy(beside(batch, nothing), gamma=gamma, kl_beta=0.0)
    for row, here, reward in zip(found, batch.mask, batch.rewards, strict=True):
        n = int(here.sum())
        powers = gamma ** torch.arange(n, 0, -1, dtype=torch.float64)
        assert torch.allclose(row[here], reward * powers)


def test_a_greedy_answer_without_a_reward_gives_no_gain() -> None:
    batch = random_batch(0)
    unknown = torch.full((batch.size,), math.nan, dtype=torch.float64)
    assert not above_greedy(beside(batch, unknown), kl_beta=0.0).any()


def test_it_needs_no_group() -> None:
    method = registry.method("remax")
    assert method.group_size == 1
    assert method.stage("sampling").fn is beside_greedy


class Showing(Guess):
    """Shows more than the prompt."""

    def reset(self, row: Any, seed: int) -> str:  # type: ignore[override]
        return f"{super().reset(row, seed)} think of {self.digit}"


def test_the_greedy_answer_is_found_whatever_its_environment_shows() -> None:
    sampler, _ = lent(Worlds(lambda k: Showing()))
    rollouts = beside_greedy(requests(4), sampler)
    assert len(rollouts) == 4
    found = [rollout.fields["greedy_rewards"] for rollout in rollouts]
    assert not any(map(math.isnan, found))  # type: ignore[arg-type]
    assert found[0] == found[2]
    assert found[1] == found[3]
