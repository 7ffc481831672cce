"""OPO: a baseline weighted by length."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.advantage import centred
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def advantages(batch: Batch) -> torch.Tensor:
    return registry.method("opo").bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-3, 3))
def test_lengths_times_advantages_sum_to_zero(seed: int, shift: float) -> None:
    batch = random_batch(seed, groups=(4, 5, 3))
    found = advantages(batch)
    assert torch.allclose(group_sum(batch.lengths * found, batch.groups), torch.zeros(3).double(), atol=1e-9)
    assert torch.allclose(advantages(batch.replace(rewards=batch.rewards + shift)), found, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_equal_lengths_are_the_plain_mean(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 5, 3))
    batch = batch.replace(mask=torch.ones_like(batch.mask))
    assert torch.allclose(advantages(batch), centred(batch), atol=1e-12)
