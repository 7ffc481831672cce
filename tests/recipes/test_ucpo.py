"""UCPO: within the correct set the less likely are reinforced more."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.ucpo import centred_surprisal, correct_set, log_share, uniform_weights
from cohort.reductions.groups import group_flat, group_sum, token_mean
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
TAUS = st.floats(0.0, 1.0)
GROUPS = (6, 5, 3, 1)


def advantages(batch: Batch, **hyper: object) -> torch.Tensor:
    return registry.method("ucpo", **hyper).bind().assign(batch)["outcome_advantage"]


def grpo(batch: Batch) -> torch.Tensor:
    return registry.method("grpo(adv_eps=1e-8, std_ddof=1)").bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_tau_zero_or_equal_likelihoods_are_grpo(seed: int, tau: float) -> None:
    batch = random_batch(seed, groups=GROUPS)
    equal = batch.replace(old_logp=torch.full_like(batch.old_logp, -0.7), mask=torch.ones_like(batch.mask))
    for variant in ("inverse", "centred-surprisal"):
        assert torch.allclose(advantages(batch, tau=0.0, variant=variant), grpo(batch))
        assert torch.allclose(advantages(equal, tau=tau, variant=variant), grpo(equal))


@settings(max_examples=15, deadline=None)
@given(SEEDS, TAUS)
def test_the_correct_set_keeps_its_total_and_wrong_rollouts_their_advantage(seed: int, tau: float) -> None:
    batch = random_batch(seed, groups=GROUPS)
    value, base, correct = advantages(batch, tau=tau), grpo(batch), batch.rewards > 0
    assert torch.equal(value[~correct], base[~correct])
    assert torch.allclose(group_sum(value * correct, batch.groups), group_sum(base * correct, batch.groups), atol=1e-10)
    assert torch.allclose(group_sum(value, batch.groups), torch.zeros(4, dtype=torch.float64), atol=1e-9)
    # Nothing is lost and nothing is added where everybody, or nobody, is right.
    flat = group_flat(batch.rewards, batch.groups)[batch.groups.index]
    assert not value[flat].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.05, 1.0))
def test_rarer_correct_rollouts_weigh_more(seed: int, tau: float) -> None:
    batch = random_batch(seed, groups=(7, 6))
    level, value = token_mean(batch.old_logp, batch.mask), advantages(batch, tau=tau)
    inside, _ = correct_set(batch)
    for group in range(batch.groups.count):
        here = inside & (batch.groups.index == group)
        if not bool((grpo(batch)[here] > 0).all()):
            continue
        order = level[here].argsort()
        assert bool((value[here][order].diff() <= 1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_at_tau_one_probability_times_weight_is_equal(seed: int) -> None:
    batch = random_batch(seed, groups=GROUPS)
    inside, _ = correct_set(batch)
    effective = uniform_weights(batch, tau=1.0, q_min=1e-12) * log_share(batch, inside).exp()
    for group in range(batch.groups.count):
        here = effective[inside & (batch.groups.index == group)]
        assert here.numel() == 0 or torch.allclose(here, here[0].expand_as(here))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_surprisal_has_mean_zero_under_q_and_acts_where_all_are_right(seed: int) -> None:
    batch = random_batch(seed, groups=GROUPS)
    inside, _ = correct_set(batch)
    bonus = centred_surprisal(batch)
    total = group_sum(inside * log_share(batch, inside).exp() * bonus, batch.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-12)
    right = batch.replace(rewards=torch.ones_like(batch.rewards))
    assert not advantages(right).any()
    assert advantages(right, variant="centred-surprisal").any()


def test_shares_survive_extreme_likelihoods() -> None:
    old = torch.tensor([[-1e-3], [-900.0], [-5.0], [-2.0]])
    batch = Batch.of(
        torch.ones(4, 1, dtype=torch.bool),
        group=torch.zeros(4, dtype=torch.int64),
        old_logp=old,
        rewards=torch.tensor([1.0, 1.0, 1.0, 0.0]),
    )
    weight = uniform_weights(batch, tau=1.0, q_min=1e-6)
    assert bool(torch.isfinite(weight).all())
    assert weight[1] > weight[2] > weight[0] > 0
    assert bool(torch.isfinite(centred_surprisal(batch)).all())
