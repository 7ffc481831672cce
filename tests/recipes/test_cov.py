"""Clip-Cov and KL-Cov: the few tokens of the largest covariance are held back."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.cov import covariance, smallest
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-2, 2))
def test_the_covariances_do_not_change_with_a_constant(seed: int, shift: float) -> None:
    batch = registry.method("cov").bind().assign(random_batch(seed))
    found = covariance(batch, batch.advantages)
    mean = found[batch.mask].mean()
    gain, logp = batch.advantages[batch.mask], batch.logp[batch.mask]
    assert torch.allclose(mean, (gain * logp).mean() - gain.mean() * logp.mean())
    moved = batch.replace(logp=batch._tokens["logp"] + shift)
    assert torch.allclose(covariance(moved, batch.advantages + shift)[batch.mask], found[batch.mask])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_kl_cov_without_its_penalty_is_the_unclipped_loss(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    mine = taken("cov", batch, variant="kl-cov", drift_coef=0.0)[1]
    want = taken("dapo(dynamic_sampling=False, overlong=False, clip_low=1.0, clip_high=1e9)", batch)[1]
    assert torch.allclose(mine, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_all_tokens_in_the_band_leaves_those_that_the_clip_holds(seed: int) -> None:
    batch = random_batch(seed, drift=1.0)
    band = {"fraction": 1.0, "cov_low": -1e9, "cov_high": 1e9}
    assert not taken("cov", batch, **band)[1].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 40))
def test_the_smallest_are_chosen(seed: int, count: int) -> None:
    batch = random_batch(seed)
    keys = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(seed))
    found = smallest(keys, batch.mask, count)
    assert int(found.sum()) == min(count, int(batch.mask.sum()))
    left = batch.mask & ~found
    if found.any() and left.any():
        assert float(keys[found].max()) <= float(keys[left].min())
