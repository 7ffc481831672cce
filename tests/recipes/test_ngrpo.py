"""NGRPO's identities, and what it makes of groups that are wrong or right throughout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.surrogate import ppo_clip
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (3, 1), (6, 2)])


def advantages(batch: Batch, **hyper: float) -> torch.Tensor:
    return registry.method("ngrpo", **hyper).bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES)
def test_without_virtual_rollouts_it_is_grpo_with_sample_std(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups, binary=False)
    plain = registry.method("grpo", std_ddof=1).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(advantages(batch, virtual=0), plain, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, virtual=st.integers(1, 4))
def test_signs(seed: int, groups: tuple[int, ...], virtual: int) -> None:
    batch = random_batch(seed, groups=groups)
    found = advantages(batch, virtual=virtual)
    assert (found[batch.rewards == 1] >= 0).all()
    assert (found[batch.rewards == 0] < 0).all()
    # The data are pushed down as far as the virtual rollouts stand above the mean.
    assert (group_sum(found, batch.groups) <= 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 12), reward=st.floats(0.0, 0.9))
def test_a_group_of_failures_is_pushed_away_equally(size: int, reward: float) -> None:
    batch = Batch.of(torch.ones(size, 2), group=torch.zeros(size), rewards=torch.full((size,), reward).double())
    found = advantages(batch)
    assert (found < 0).all()
    assert found.max() == found.min()
    assert float(found[0]) == pytest.approx(-1 / math.sqrt(size + 1), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 12), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_a_group_of_successes_stays_exactly_where_it_is(size: int, dtype: torch.dtype) -> None:
    batch = Batch.of(torch.ones(size, 2), group=torch.zeros(size), rewards=torch.full((size,), 0.7, dtype=dtype))
    best = float(torch.tensor(0.7, dtype=dtype))
    assert not advantages(batch, r_max=best, virtual=3).any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_filter_drops_solved_groups_and_keeps_failed_ones(seed: int) -> None:
    batch = random_batch(seed, groups=(3, 3, 3, 3))
    index = batch.groups.index
    accuracy = torch.where(index == 0, 1.0, torch.where(index == 1, 0.0, batch["accuracy"].float())).double()
    kept = registry.method("ngrpo").bind().keep(batch.replace(accuracy=accuracy))
    left = set(index[kept].tolist())
    assert 0 not in left
    assert 1 in left
    assert {g for g in (2, 3) if not accuracy[index == g].all()} <= left


def test_positives_go_further_than_negatives() -> None:
    batch = random_batch(0)
    stage = registry.method("ngrpo").stage("surrogate")
    assert stage.fn is ppo_clip
    for ratio, advantage, moves in ((1.23, 1.0, True), (1.25, 1.0, False), (0.85, -1.0, True), (0.83, -1.0, False)):
        x = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(stage(batch, x, torch.tensor([[advantage]]).double()).sum(), x)
        assert bool(slope != 0) == moves
