"""CHORD: supervised learning beside GRPO, with a weight that fades."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.chord import expert_weight, share
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


SCHEDULES = st.fixed_dictionaries(
    {
        "warmup_steps": st.integers(0, 30),
        "decay_steps": st.integers(0, 30),
        "peak": st.floats(0, 1),
        "valley": st.floats(0, 1),
    }
)


@settings(max_examples=50, deadline=None)
@given(SCHEDULES, st.integers(0, 100))
def test_the_share_stays_between_its_ends_and_ends_at_the_valley(schedule: dict[str, float], step: int) -> None:
    mu = share(step, **schedule)
    assert -1e-12 <= mu <= max(schedule["peak"], schedule["valley"]) + 1e-12
    if step >= schedule["warmup_steps"] + schedule["decay_steps"]:
        assert mu == schedule["valley"]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_nothing_of_the_experts_is_grpo_with_a_token_mean(seed: int) -> None:
    batch = random_batch(seed, drift=0.3)
    batch = batch.with_rollouts(preference=torch.zeros(batch.size).double())
    method = registry.method("chord(peak=0.0, valley=0.0)")
    assert torch.allclose(
        taken(method, batch)[1], taken("dapo(dynamic_sampling=False, overlong=False, clip_high=0.2)", batch)[1]
    )


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["phi", "probability", "none"]))
def test_experts_tokens_have_the_gradient_of_their_weight(seed: int, weighting: str) -> None:
    batch = random_batch(seed)
    batch = batch.replace(rewards=torch.ones_like(batch.rewards), logp=batch._tokens["logp"].clamp(max=0.0))
    expert = torch.arange(batch.size) % 3 == 0
    batch = batch.with_rollouts(preference=expert.double())
    phi = expert_weight(batch, weighting=weighting)
    assert bool((phi <= (0.25 if weighting == "phi" else 1.0)).all())
    method = registry.method(f"chord(peak=0.4, valley=0.4, weighting='{weighting}')")
    count = (batch.mask & expert[:, None]).sum().clamp(min=1)
    assert torch.allclose(taken(method, batch)[1], -0.4 * phi / count)
