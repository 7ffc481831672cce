"""Skywork-OR1: the coefficient of the entropy bonus follows the entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.skywork_or1 import controlled
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=20), st.floats(0, 0.01))
def test_the_coefficient_stays_within_bounds_and_moves_by_delta(entropies: list[float], delta: float) -> None:
    state = {"coefficient": 0.002, "gate": 1.0}
    for entropy in entropies:
        new = controlled(state, entropy, delta=delta, low=0.001, high=0.005, target=0.2)
        assert 0.001 <= new["coefficient"] <= 0.005
        assert abs(new["coefficient"] - state["coefficient"]) <= delta + 1e-12
        assert new["gate"] == float(entropy < 0.2)
        state = new


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_a_coefficient_it_is_grpo_with_a_token_mean(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    mine = taken("skywork-or1", batch, drop_zero_variance_groups=False)[1]
    assert torch.allclose(mine, taken("dapo(dynamic_sampling=False, overlong=False, clip_high=0.2)", batch)[1])


def test_a_step_above_the_target_closes_the_gate() -> None:
    method = registry.method("skywork-or1", start=0.004)
    batch = random_batch(2)
    batch = batch.replace(old_entropy=torch.full_like(batch.logp, 1.5))
    states = method.bind(method.init(size=3)).on_step_end(batch, [None] * batch.size, None)
    assert states["regularizer/adaptive_bonus"] == {"coefficient": pytest.approx(0.0039), "gate": 0.0}


def test_a_start_out_of_bounds_is_refused() -> None:
    with pytest.raises(MethodError, match="must lie within"):
        registry.method("skywork-or1(start=1.0)")
