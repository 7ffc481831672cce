"""INTELLECT-2: the ratio ends at delta."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.intellect_2 import two_sided
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1.3, 6))
def test_it_is_the_dual_clip_from_the_clip_on(seed: int, delta: float) -> None:
    batch = random_batch(seed, drift=1.5)
    mine = taken("intellect-2", batch, delta=delta, kl_beta=0.0, clip_high=0.28)
    theirs = taken(registry.method(f"dual-clip(cap={delta}, clip_high=0.28)"), batch)
    assert torch.allclose(mine[0], theirs[0])
    assert torch.allclose(mine[1], theirs[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_an_end_it_is_grpo(seed: int) -> None:
    batch = random_batch(seed, drift=1.5)
    mine = taken("intellect-2", batch, delta=1e9, kl_beta=0.0)
    assert torch.allclose(mine[1], taken("grpo(kl_beta=0.0)", batch)[1])


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 100), st.floats(0.1, 3))
def test_a_negative_advantage_never_costs_more_than_delta(ratio: float, gain: float) -> None:
    loss = two_sided(random_batch(0), torch.tensor([[ratio]]), torch.tensor([[-gain]]), delta=4.0)
    assert float(loss) <= 4.0 * gain * (1 + 1e-6)
