"""VESPO: a kernel on the ratio of the whole rollout."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.vespo import soft_weight
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


def assigned(seed: int, drift: float):
    batch = random_batch(seed, drift=drift)
    return registry.method("vespo").bind().assign(batch)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_it_is_a_token_mean_of_group_advantages(seed: int) -> None:
    batch = on_policy(random_batch(seed))
    assert torch.allclose(taken("vespo", batch)[1], taken("dapo(dynamic_sampling=False, overlong=False)", batch)[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_all_tokens_of_a_rollout_have_the_same_gradient(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    for row, here in zip(taken("vespo", batch)[1], batch.mask, strict=True):
        assert torch.allclose(row[here], row[here][:1].expand_as(row[here]))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.2, 4), st.floats(0.2, 4))
def test_the_kernel_peaks_at_k_over_lambda(seed: int, k: float, scale: float) -> None:
    batch = assigned(seed, 0.3)
    peak = (k / scale) ** k * torch.tensor(scale - k, dtype=torch.float64).exp()
    phi = soft_weight(batch, k_pos=k, lambda_pos=scale, k_neg=k, lambda_neg=scale)
    assert bool((phi <= peak * (1 + 1e-9)).all())
    # The rollout without tokens has W = 1.
    assert torch.allclose(phi[~batch.mask.any(1)], torch.ones(1, dtype=torch.float64))
