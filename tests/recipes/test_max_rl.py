"""MaxRL: advantages over the pass rate."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.reductions.groups import group_mean, group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def advantages(batch: Batch) -> torch.Tensor:
    return registry.method("max-rl", adv_eps=1e-12).bind().assign(batch)["outcome_advantage"]


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(0.1, 5))
def test_of_binary_rewards_it_is_the_odds_against_and_minus_one(seed: int, scale: float) -> None:
    batch = random_batch(seed, groups=(4, 5, 3))
    batch = batch.replace(rewards=(batch["reward_components"][:, 1] > 0).double())
    found, rate = advantages(batch), group_mean(batch.rewards, batch.groups)[batch.groups.index]
    inner = (rate > 0) & (rate < 1)
    want = torch.where(batch.rewards > 0, (1 - rate) / rate.clamp(min=1e-3), torch.tensor(-1.0).double())
    assert torch.allclose(found, torch.where(inner, want, 0.0), atol=1e-9)
    assert torch.allclose(group_sum(found, batch.groups), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(advantages(batch.replace(rewards=scale * batch.rewards)), found, atol=1e-9)
