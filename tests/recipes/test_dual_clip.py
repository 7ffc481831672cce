"""Dual-clip PPO: the loss of a negative advantage has an end."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.axes.surrogate import dual_clip
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_far_cap_and_fresh_rollouts_are_grpo(seed: int) -> None:
    batch = random_batch(seed, drift=1.0)
    far = taken("dual-clip(cap=1e9)", batch)[1]
    assert torch.allclose(far, taken("grpo(kl_beta=0.0)", batch)[1])
    fresh = on_policy(batch)
    assert torch.allclose(taken("dual-clip", fresh)[1], taken("grpo(kl_beta=0.0)", fresh)[1])


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 100), st.floats(0.1, 3), st.floats(1.3, 10))
def test_losses_are_bounded_on_both_sides(ratio: float, gain: float, cap: float) -> None:
    r, a = torch.tensor([[ratio]]), torch.tensor([[gain]])
    down, up = (float(dual_clip(random_batch(0), r, sign * a, cap=cap)) for sign in (-1, 1))
    assert 0 <= down <= cap * gain * (1 + 1e-6)
    assert -up <= 1.2 * gain * (1 + 1e-6)
