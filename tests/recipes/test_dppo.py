"""DPPO: tokens that moved too far in probability are dropped."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.dppo import binary_divergence, kept, topk_divergence
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_limits_it_is_cispo_without_a_clip(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    free = {"limit_low": 9.0, "limit_high": 9.0, "ratio_cap": None, "behaviour": "old"}
    mine = taken(registry.method("dppo", **free), batch)[1]
    assert torch.allclose(mine, taken("cispo(is_clip_high=1e9)", batch)[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["tv", "kl"]))
def test_fresh_rollouts_lose_no_token(seed: int, kind: str) -> None:
    batch = registry.method("dppo").bind().assign(on_policy(random_batch(seed)))
    assert bool(kept(batch, batch.advantages, divergence=kind, limit_low=0.0, limit_high=0.0, behaviour="old").all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_total_variation_is_bounded_by_the_kl(seed: int) -> None:
    batch = random_batch(seed, drift=1.0)
    logp, old = batch.logp[batch.mask].clamp(max=-1e-3), batch.old_logp[batch.mask].clamp(max=-1e-3)
    tv, kl = binary_divergence(logp, old, "tv"), binary_divergence(logp, old, "kl")
    assert bool((tv**2 <= kl / 2 + 1e-6).all())


def test_over_all_tokens_it_is_the_divergence_of_the_distributions() -> None:
    torch.manual_seed(0)
    logits, before = torch.randn(2, 3, 7).double(), torch.randn(2, 3, 7).double().log_softmax(-1)
    best = before.topk(6, -1)
    p, o = logits.softmax(-1), before.exp()
    tv = topk_divergence(logits, best.indices, best.values, "tv")
    assert torch.allclose(tv, 0.5 * (p - o).abs().sum(-1))
    kl = topk_divergence(logits, best.indices, best.values, "kl")
    assert torch.allclose(kl, (o * (o / p).log()).sum(-1))
