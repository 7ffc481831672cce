"""PC-GRPO's identities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.pc_grpo import by_dispersion, difficulty_weight
from cohort.reductions.groups import group_mean, group_std, group_sum
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def graded(seed: int):
    batch = random_batch(seed, groups=(4, 3, 5))
    binary = (batch["accuracy"] > 0.5).to(batch.dtype)
    return batch.replace(rewards=binary).with_rollouts(accuracy=binary)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_weight_lies_between_the_floor_and_1_and_is_symmetric(d: float, floor: float) -> None:
    at = torch.tensor([d, 1 - d], dtype=torch.float64)
    a, b = difficulty_weight(at, floor=floor)
    assert float(a) == pytest.approx(float(b))
    assert floor - 1e-9 <= a <= 1 + 1e-9


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_floor_of_1_is_plain_grpo_and_groups_sum_to_zero(seed: int) -> None:
    batch = graded(seed)
    plain = registry.method("grpo").bind().assign(batch).advantages
    assert torch.equal(registry.method("pc-grpo", floor=1.0).bind().assign(batch).advantages, plain)
    weighted = registry.method("pc-grpo", floor=0.2).bind().assign(batch)["outcome_advantage"]
    assert (group_sum(weighted, batch.groups).abs() < 1e-9).all()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_binary_puzzles_the_weighted_scale_grows_as_the_deviation(seed: int) -> None:
    batch = graded(seed)
    found = registry.method("pc-grpo", adv_eps=1e-12).bind().assign(batch).advantages
    centred = batch.rewards - group_mean(batch.rewards, batch.groups)[batch.groups.index]
    want = 4 * group_std(batch.rewards, batch.groups)[batch.groups.index] * centred
    assert torch.allclose(found, torch.where(batch.mask, want[:, None], 0.0), atol=1e-6)


def test_a_group_that_gives_one_answer_counts_nothing_when_exploring() -> None:
    batch = random_batch(0, groups=(4, 4))
    first = batch.groups.index == 0
    ids = torch.full((8,), -1)
    ids[first], ids[~first] = 0, torch.tensor([1, 2, 3, -1])
    before = torch.ones_like(batch.logp)
    after = by_dispersion(batch.with_rollouts(answer_id=ids), before)
    assert (after[first] == 0).all()
    assert torch.equal(after[~first], before[~first])
