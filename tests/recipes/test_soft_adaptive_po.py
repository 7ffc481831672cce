"""SAPO: a gate of slope 1 at ratio 1 in place of the clip."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.axes.surrogate import soft_gate
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 10), st.floats(0.1, 10))
def test_on_policy_the_gradient_is_grpos_whatever_the_temperatures(seed: int, up: float, down: float) -> None:
    batch = on_policy(random_batch(seed))
    mine = taken("soft-adaptive-po", batch, tau_pos=up, tau_neg=down)[1]
    assert torch.allclose(mine, taken("grpo(kl_beta=0.0)", batch)[1], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_small_temperature_is_the_unclipped_gradient(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    mine = taken("soft-adaptive-po", batch, tau_pos=1e-4, tau_neg=1e-4)[1]
    assert torch.allclose(mine, taken("grpo(kl_beta=0.0, clip_low=1.0, clip_high=1e9)", batch)[1], atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.2, 9))
def test_the_weight_is_symmetric_and_at_most_one(far: float, tau: float) -> None:
    ratio = torch.tensor([[1 - far, 1.0, 1 + far]], dtype=torch.float64, requires_grad=True)
    ones = torch.ones_like(ratio)
    (slope,) = torch.autograd.grad(-soft_gate(random_batch(0), ratio, ones, tau_pos=tau).sum(), ratio)
    assert torch.allclose(slope[0, 0], slope[0, 2])
    assert torch.allclose(slope[0, 1], torch.tensor(1.0, dtype=torch.float64))
    assert bool((slope[0, [0, 2]] < 1).all())
