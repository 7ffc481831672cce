"""Lite PPO: the deviation of the batch, and a baseline by group."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def advantages(batch: Batch, **hyper: object) -> torch.Tensor:
    return registry.method("lite-ppo", **hyper).bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-3, 3))
def test_groups_sum_to_zero_and_a_constant_changes_nothing(seed: int, shift: float) -> None:
    batch = random_batch(seed, groups=(4, 5, 3))
    found = advantages(batch)
    assert torch.allclose(group_sum(found, batch.groups), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(advantages(batch.replace(rewards=batch.rewards + shift)), found, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_of_one_group_it_is_grpo_with_the_sample_deviation(seed: int) -> None:
    batch = random_batch(seed, groups=(6,))
    grpo = registry.method("grpo", adv_eps=1e-4, std_ddof=1).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(advantages(batch), grpo, atol=1e-9)
