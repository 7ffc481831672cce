"""CAPO: likelihood should rank right above wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.objective import GradedRewardError
from cohort.reductions.groups import group_mean, group_size, group_sum, group_table, token_mean
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
TAUS = st.floats(0.05, 5.0)
GROUPS = (6, 5, 3, 1)


def advantages(batch: Batch, **hyper: float | None) -> torch.Tensor:
    return registry.method("capo-calibration", **hyper).bind().assign(batch)["outcome_advantage"]


def unmasked(batch: Batch, tau: float) -> torch.Tensor:
    return advantages(batch, tau=tau, ref_high=None, ref_low=None)


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_it_is_the_derivative_of_the_surrogate_of_the_auc(seed: int, tau: float) -> None:
    """And so sums to 0 in every group, above 0 for correct and below 0 for wrong rollouts."""
    batch = random_batch(seed, groups=GROUPS)
    level = token_mean(batch.old_logp, batch.mask).requires_grad_()
    pairs = (batch.group[:, None] == batch.group) & (batch.rewards[:, None] > 0) & (batch.rewards[None] <= 0)
    surrogate = torch.nn.functional.softplus(-(level[:, None] - level[None]) / tau)[pairs].sum()
    expected = -torch.autograd.grad(surrogate, level)[0]
    value = unmasked(batch, tau)
    assert torch.allclose(value, expected)
    assert torch.allclose(group_sum(value, batch.groups), torch.zeros(4, dtype=torch.float64), atol=1e-10)
    assert bool((value * torch.where(batch.rewards > 0, 1, -1) >= 0).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_very_soft_surrogate_is_the_unnormalised_group_advantage(seed: int) -> None:
    batch, tau = random_batch(seed, groups=GROUPS), 1e6
    size = group_size(batch.groups, torch.float64)[batch.groups.index]
    expected = size * (batch.rewards - group_mean(batch.rewards, batch.groups)[batch.groups.index])
    assert torch.allclose(2 * tau * unmasked(batch, tau), expected, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 1.0))
def test_misranked_rollouts_weigh_most(seed: int, tau: float) -> None:
    """What calibration asks for: the wrong answer given with most confidence is pushed down hardest, the right answer
    given with least is pulled up hardest."""
    batch = random_batch(seed, groups=(8, 7))
    level, value = token_mean(batch.old_logp, batch.mask), unmasked(batch, tau)
    for group in range(2):
        for right in (True, False):
            here = (batch.groups.index == group) & ((batch.rewards > 0) == right)
            by_level = value[here][level[here].argsort()]
            assert bool((by_level.diff() <= 1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS, st.floats(1.0, 3.0), st.floats(1.0, 3.0))
def test_the_mask_silences_a_rollout_but_leaves_it_in_the_pairs(seed: int, tau: float, high: float, low: float) -> None:
    batch = random_batch(seed, groups=GROUPS)
    perplexity = (-token_mean(batch.ref_logp, batch.mask)).exp()
    keep = torch.where(batch.rewards > 0, perplexity <= high, perplexity >= low)
    value = advantages(batch, tau=tau, ref_high=high, ref_low=low)
    assert torch.equal(value, unmasked(batch, tau) * keep)
    right = advantages(batch, tau=tau, ref_high=high, ref_low=None)
    assert torch.equal(right[batch.rewards <= 0], unmasked(batch, tau)[batch.rewards <= 0])


def test_graded_rewards_need_a_threshold() -> None:
    batch = random_batch(1)
    halved = batch.replace(rewards=batch.rewards / 2)
    with pytest.raises(GradedRewardError, match="threshold"):
        advantages(halved)
    assert torch.equal(advantages(halved, threshold=0.5), advantages(batch))


def test_without_bounds_no_reference_is_needed() -> None:
    assert "ref_logp" in registry.method("capo-calibration").needs(loss=False)
    assert "ref_logp" in registry.method("capo-calibration(ref_high=None)").needs(loss=False)
    assert "ref_logp" not in registry.method("capo-calibration(ref_high=None,ref_low=None)").needs(loss=False)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([(4, 4), (1, 6, 2), (3,)]))
def test_the_table_of_groups_holds_every_rollout_once(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    rows, there = group_table(batch.groups)
    assert rows.shape == (len(groups), max(groups))
    assert sorted(rows[there].tolist()) == list(range(batch.size))
    label = torch.arange(len(groups))[:, None].expand_as(rows)
    assert torch.equal(batch.groups.index[rows], label)
