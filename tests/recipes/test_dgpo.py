"""DGPO's identities: every prompt with a signal moves the policy equally far, but for its weight."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.dgpo import question_weights, valid_groups
from cohort.reductions.groups import group_mean, group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3, 8), (3, 3), (6, 2, 1)])


def per_rollout(method: str, batch: Batch) -> torch.Tensor:
    out = registry.method(method).bind().assign(batch)
    return out.advantages[:, 0]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, binary=st.booleans())
def test_the_update_of_a_valid_group_is_its_size_times_its_weight(
    seed: int, groups: tuple[int, ...], binary: bool
) -> None:
    batch = random_batch(seed, groups=groups, binary=binary, empty=False)
    found, valid = per_rollout("dgpo(eps_mad=1e-12)", batch), valid_groups(batch)
    weight = question_weights(batch, temperature=2.0)
    size = torch.bincount(batch.groups.index).double()
    assert torch.allclose(group_sum(found.abs(), batch.groups), torch.where(valid, size * weight, 0.0), atol=1e-6)
    assert torch.allclose(group_sum(found, batch.groups), torch.zeros_like(weight), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, temperature=st.floats(0.05, 10))
def test_weights_sum_to_the_valid_groups_and_favour_hard_ones(
    seed: int, groups: tuple[int, ...], temperature: float
) -> None:
    batch = random_batch(seed, groups=groups)
    valid, rate = valid_groups(batch), group_mean(batch["accuracy"], batch.groups)
    weight = question_weights(batch, temperature=temperature)
    assert torch.isclose(weight[valid].sum(), valid.sum().double(), atol=1e-9)
    assert (weight[~valid] == 1).all()
    order = torch.argsort(rate[valid])
    assert (weight[valid][order].diff() <= 1e-12).all()
    assert torch.allclose(question_weights(batch, temperature=1e12)[valid], torch.ones_like(weight[valid]), atol=1e-9)


def test_a_group_valid_through_another_reward_alone_comes_last() -> None:
    group = torch.tensor([0, 0, 1, 1, 2, 2])
    batch = Batch.of(
        torch.ones(6, 1),
        group=group,
        accuracy=torch.tensor([0.0, 0, 1, 0, 1, 1]).double(),
        rewards=torch.tensor([0.5, 0.0, 1.5, 0.5, 1.5, 1.0]).double(),
    )
    weight = question_weights(batch, temperature=2.0)
    assert weight[1] > weight[0]
    assert torch.isclose(weight[0], weight[2])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_pairs_of_a_right_and_a_wrong_rollout_are_grpo(seed: int) -> None:
    batch = random_batch(seed, groups=(2, 2, 2, 2), empty=False)
    found = per_rollout("dgpo(temperature=1e12, eps_mad=1e-12)", batch)
    grpo = registry.method("grpo", adv_eps=1e-12).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(found, grpo, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_only_tokens_of_valid_groups_count(seed: int) -> None:
    """Rollouts of groups without a signal change neither the loss nor its divisor."""
    method = registry.method("dgpo")
    batch = random_batch(seed, groups=(4, 4, 4))
    index, flat = batch.groups.index, torch.full_like(batch.rewards, 0.7)
    batch = batch.replace(rewards=torch.where(index == 0, flat, batch.rewards))
    with_flat = method.bind().loss(method.bind().prepare(batch).batch).total
    without = method.bind().loss(method.bind().prepare(batch.select(index != 0)).batch).total
    assert torch.isclose(with_flat, without, atol=1e-12)
