"""REAL: rewards as labels of a classification."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort.recipes.real import contributing, labels
from cohort.reductions.groups import group_sum, token_mean
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)
TAUS = st.floats(0.1, 3)


def weights(batch: Batch, tau: float) -> Tensor:
    """|dL/ds| of each rollout; the score is a mean over tokens, and the loss a mean over groups."""
    _, grad = taken("real", batch, tau=tau)
    return grad.sum(1).abs() * batch.groups.count


def used(batch: Batch) -> Tensor:
    """[N] bool: rollouts with tokens in groups with both classes."""
    right, wrong = labels(batch, label_rule="reward", threshold=None)
    both = contributing(right, wrong, batch.groups, skip_uniform=True)
    return both[batch.groups.index] & batch.mask.any(1)


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_weights_are_those_of_the_papers_formula(seed: int, tau: float) -> None:
    batch = random_batch(seed, groups=(4, 5, 3), drift=1.0)
    right = batch.rewards == 1
    sign = torch.where(right, -1.0, 1.0).double()
    logit = (sign * token_mean(batch.logp - batch.old_logp, batch.mask) / tau).exp()
    same = ((batch.group[:, None] == batch.group[None]) & (right[:, None] == right[None])).double()
    others = 1 + same @ logit - logit
    expected = (1 / tau) / (1 + others / logit)
    found, there = weights(batch, tau), used(batch)
    assert torch.allclose(found[there], expected[there])
    assert not found[~there].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_no_weight_and_no_class_exceeds_one_over_tau(seed: int, tau: float) -> None:
    batch = random_batch(seed, drift=3.0)
    found = weights(batch, tau)
    for side in (batch.rewards == 1, batch.rewards == 0):
        assert bool((group_sum(torch.where(side, found, 0.0), batch.groups) < 1 / tau + 1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_on_policy_all_of_a_class_weigh_the_same(seed: int, tau: float) -> None:
    batch = on_policy(random_batch(seed))
    right, there = (batch.rewards == 1).double(), used(batch)
    size = torch.where(right == 1, group_sum(right, batch.groups)[batch.groups.index], 0.0)
    size = torch.where(right == 0, group_sum(1 - right, batch.groups)[batch.groups.index], size)
    assert torch.allclose(weights(batch, tau)[there], (1 / tau / (1 + size))[there])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["group_softmax", "bce"]))
def test_rollouts_on_the_right_side_already_are_pushed_less(seed: int, variant: str) -> None:
    batch = random_batch(seed, empty=False)
    row = int(torch.randint(batch.size, (1,), generator=torch.Generator().manual_seed(seed)))
    right = bool(batch.rewards[row] == 1)
    raised = batch._tokens["logp"].clone()
    raised[row] += 0.5
    before, after = (
        float(taken("real", b, variant=variant)[1][row].sum().abs()) for b in (batch, batch.replace(logp=raised))
    )
    assert before == after == 0 or (after < before) == right


def test_a_reward_at_the_mean_of_its_group_is_wrong_whatever_the_order() -> None:
    for rewards in itertools.permutations([0.1, 0.2, 0.3, 0.7, 0.7, 0.4]):
        values = torch.tensor(rewards, dtype=torch.float64)
        batch = Batch.of(torch.ones(6, 1), group=torch.zeros(6, dtype=torch.int64), rewards=values)
        right, wrong = labels(batch, label_rule="above_group_mean", threshold=None)
        assert right.tolist() == [r > 0.4 for r in rewards]
        assert torch.equal(wrong, ~right)


@pytest.mark.parametrize("skip", [True, False])
def test_equal_graded_rewards_have_no_classes(skip: bool) -> None:
    batch = random_batch(2)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, 0.7))
    loss, grad = taken("real", batch, label_rule="above_group_mean", skip_uniform_groups=skip)
    assert float(loss) == 0
    assert not grad.any()


def test_one_class_groups_keep_their_term_only_if_asked() -> None:
    batch = random_batch(2)
    batch = batch.replace(rewards=torch.ones_like(batch.rewards))
    assert not taken("real", batch)[1].any()
    assert bool((taken("real", batch, skip_uniform_groups=False)[1][batch.mask] < 0).all())
