"""DRPO: DisCO with correct rollouts weighted by their length."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.recipes.drpo import length_reward, preference_weights
from cohort.reductions.groups import group_sum
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 20))
def test_without_a_preference_it_is_disco(seed: int, tau: float) -> None:
    batch = random_batch(seed)
    for infinite in (None, float("inf")):
        loss, grad = taken("drpo", batch, length_weight_lambda=infinite, tau=tau)
        same, same_grad = taken("disco", batch, tau=tau)
        assert torch.allclose(loss, same)
        assert torch.allclose(grad, same_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 2))
def test_weights_are_a_distribution_that_prefers_short_ones(seed: int, scale: float) -> None:
    batch = random_batch(seed, groups=(6, 6))
    correct, there = batch.rewards == 1, batch.mask.any(1)
    reward = length_reward(batch, max_len=6)
    assert torch.equal(reward[~there], torch.ones_like(reward[~there]))
    weights = preference_weights(batch, correct, reward, scale=scale)
    assert torch.equal(weights > 0, correct & there)
    total = group_sum(weights, batch.groups)
    assert torch.allclose(total[total > 0], torch.ones_like(total[total > 0]))
    shorter = (batch.lengths[:, None] < batch.lengths[None]) & (batch.group[:, None] == batch.group[None])
    both = (correct & there)[:, None] & (correct & there)[None]
    assert bool((weights[:, None] > weights[None])[shorter & both].all())
    shifted = preference_weights(batch, correct, reward + 3.7, scale=scale)
    assert torch.allclose(weights, shifted)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 8))
def test_budget_and_lambda_scale_together(seed: int, factor: int) -> None:
    batch = random_batch(seed)
    loss, grad = taken("drpo", batch, length_weight_lambda=0.3, max_len=6)
    same, same_grad = taken("drpo", batch, length_weight_lambda=0.3 / factor, max_len=6 * factor)
    assert torch.allclose(loss, same)
    assert torch.allclose(grad, same_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_no_correct_rollout_is_pushed_down_and_the_shorter_are_pushed_up_more(seed: int) -> None:
    batch = random_batch(seed, groups=(6, 6))
    _, grad = taken("drpo", batch, kl_beta=0.0, length_weight_lambda=0.2)
    correct = batch.rewards == 1
    assert bool((grad[correct] <= 0).all())
    # The derivative with respect to the score of a rollout, which is a mean over its tokens.
    push = -grad.sum(1)
    used = correct & (push != 0)
    shorter = (batch.lengths[:, None] < batch.lengths[None]) & (batch.group[:, None] == batch.group[None])
    assert bool((push[:, None] > push[None])[shorter & used[:, None] & used[None]].all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_length_of_a_wrong_rollout_never_matters(seed: int) -> None:
    batch = random_batch(seed, empty=False)
    correct = batch.rewards == 1
    first = torch.zeros_like(batch.mask)
    first[:, 0] = True
    shortened = batch.replace(mask=torch.where(correct[:, None], batch.mask, batch.mask & first))
    weights = [preference_weights(b, correct, length_reward(b, max_len=6), scale=0.1) for b in (batch, shortened)]
    assert torch.equal(*weights)


def test_a_tiny_lambda_does_not_overflow() -> None:
    batch = random_batch(3)
    loss, grad = taken("drpo", batch, length_weight_lambda=1e-6)
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
