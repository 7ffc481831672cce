"""DS-GRPO: rare correct rollouts gain, rare wrong ones lose."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.reductions.groups import group_sum, token_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
GAMMAS = st.floats(0.0, 0.5)


def advantages(batch: Batch, **hyper: float) -> torch.Tensor:
    return registry.method("differential-smoothing", **hyper).bind().assign(batch)["outcome_advantage"]


def grpo(batch: Batch) -> torch.Tensor:
    return registry.method("grpo").bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, GAMMAS)
def test_without_weights_it_is_grpo_and_gamma_n_touches_wrong_rollouts_alone(seed: int, gamma: float) -> None:
    batch = random_batch(seed, groups=(5, 4, 1))
    assert torch.equal(advantages(batch, gamma_p=0.0, gamma_n=0.0), grpo(batch))
    wrong = batch.rewards <= 0
    assert torch.equal(advantages(batch, gamma_p=gamma, gamma_n=0.0)[wrong], grpo(batch)[wrong])
    assert torch.equal(advantages(batch, gamma_p=0.0, gamma_n=gamma)[~wrong], grpo(batch)[~wrong])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_rare_correct_rollouts_rise_and_rare_wrong_ones_fall(seed: int, gamma_p: float, gamma_n: float) -> None:
    """Log-probabilities are below 0 here: a bonus for every correct rollout, a malus for every wrong one."""
    batch = random_batch(seed, groups=(6, 6))
    logp = token_sum(batch.old_logp, batch.mask)
    change = advantages(batch, gamma_p=gamma_p, gamma_n=gamma_n) - grpo(batch)
    correct, there = batch.rewards > 0, batch.mask.any(1)
    assert bool((change[correct & there] > 0).all())
    assert bool((change[~correct & there] < 0).all())
    assert not change[~there].any()
    for side, sign in ((correct, 1), (~correct, -1)):
        order = logp[side].argsort(descending=True)
        assert bool((sign * change[side][order].diff() >= -1e-12).all())
    assert torch.allclose(
        group_sum(change, batch.groups), group_sum(torch.where(correct, -gamma_p * logp, gamma_n * logp), batch.groups)
    )


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 1.0]))
def test_groups_of_equal_rewards_are_still_trained(seed: int, reward: float) -> None:
    batch = random_batch(seed, groups=(4, 3), empty=False)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, reward))
    value = advantages(batch)
    assert bool((value > 0).all() if reward else (value < 0).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, GAMMAS, GAMMAS)
def test_the_reward_form_takes_the_references_numbers_and_normalises_afterwards(
    seed: int, gamma_p: float, gamma_n: float
) -> None:
    batch = random_batch(seed)
    made = registry.method("differential-smoothing", form="reward", gamma_p=gamma_p, gamma_n=gamma_n)
    assert made.needs(loss=False) == {"ref_logp"}
    shaped = made.bind().shape(batch)
    logp = token_sum(batch.ref_logp, batch.mask)
    expected = torch.where(batch.rewards > 0, -gamma_p * logp, gamma_n * logp)
    assert torch.allclose(shaped.rewards - batch.rewards, expected)
    assert torch.equal(made.bind().assign(shaped)["outcome_advantage"], grpo(shaped))


def test_gradient_spreads_the_correct_set() -> None:
    """Two correct rollouts of one group: ascent raises the rarer one more, though their rewards are equal."""
    batch = random_batch(3, groups=(3,), empty=False)
    rewards = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    old = torch.tensor([[-0.1], [-4.0], [-1.0]], dtype=torch.float64)
    mask = torch.ones(3, 1, dtype=torch.bool)
    batch = Batch.of(mask, group=torch.zeros(3, dtype=torch.int64), rewards=rewards, old_logp=old)
    logp = old.clone().requires_grad_()
    made = registry.method("differential-smoothing")
    loss = made.bind().loss(made.bind().assign(batch.replace(logp=logp))).total
    push = -torch.autograd.grad(loss, logp)[0][:, 0]
    assert push[1] > push[0] > 0 > push[2]
