"""DeepSeek-V3.2: an unbiased KL, and stale losers masked."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.deepseek_v3_2 import unbiased_kl
from cohort.reductions.kl import k3
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_derivative_of_the_kl_is_the_policy_gradients(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    logp = batch._tokens["logp"].clone().requires_grad_()
    term = unbiased_kl(batch.with_tokens(logp=logp), beta=1.0)
    (slope,) = torch.autograd.grad(term.sum(), logp)
    want = (batch.logp - batch.old_logp).exp() * (batch.logp - batch.ref_logp)
    assert torch.allclose(slope, torch.where(batch.mask, want, 0.0))
    fresh = batch.replace(logp=batch._tokens["old_logp"])
    assert torch.allclose(unbiased_kl(fresh, beta=1.0), k3(fresh.logp, fresh.ref_logp))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_a_threshold_and_a_kl_it_is_grpo_without_a_deviation(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    mine = taken("deepseek-v3-2", batch, mask_threshold=None, kl_beta=0.0)[1]
    assert torch.allclose(mine, taken("dr-grpo:advantage", batch)[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_positive_rollouts_are_never_dropped_and_dropped_ones_keep_their_kl(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    far = batch.replace(logp=batch._tokens["logp"] - 9.0)
    hyper = {"mask_threshold": 1.0, "behaviour": "old"}
    masked = taken("deepseek-v3-2", far, kl_beta=0.0, **hyper)[1]
    free = taken("deepseek-v3-2", far, kl_beta=0.0, mask_threshold=None)[1]
    gain = registry.method("deepseek-v3-2").bind().assign(far)["outcome_advantage"]
    assert torch.equal(masked[gain > 0], free[gain > 0])
    assert not masked[gain < 0].any()
    both = taken("deepseek-v3-2", far, kl_beta=1.0, **hyper)[1]
    alone = taken("deepseek-v3-2", far.replace(rewards=torch.zeros_like(far.rewards)), kl_beta=1.0, **hyper)[1]
    assert torch.allclose(both[gain < 0], alone[gain < 0])
