"""f-HAL's identities, and the preference batch that stands beside its rollouts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.objective import sequence_log_ratio
from cohort.reductions.divergence import TABLE
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro
from tests.helpers import random_batch
from tests.recipes.steps import update_of
from tests.stepping import run_of
from tests.traits import trait

SEEDS = st.integers(0, 10_000)
DIVERGENCES = st.sampled_from(list(TABLE))


def mixed(seed: int, drift: float = 0.3) -> Batch:
    """Eight rollouts in two groups, then three chosen and two rejected completions of prompts of their own."""
    batch = random_batch(seed, groups=(13,), drift=drift)
    group = torch.cat([torch.arange(8) % 2, torch.arange(2, 7)])
    preference = torch.tensor([0.0] * 8 + [1.0] * 3 + [-1.0] * 2, dtype=torch.float64)
    return batch.replace(group=group).with_rollouts(preference=preference, row=group)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, divergence=DIVERGENCES)
def test_without_preferences_it_is_f_grpo(seed: int, divergence: str) -> None:
    batch = random_batch(seed, binary=False)
    hal = update_of(f"f-hal(divergence='{divergence}', hybrid_weight=0.0)", batch)
    grpo = update_of(registry.method("f-grpo", divergence=divergence, conj_clip=math.inf), batch)
    assert torch.allclose(hal[0], grpo[0], atol=1e-12)
    assert torch.allclose(hal[1]["logp"], grpo[1]["logp"], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, divergence=DIVERGENCES, weight=st.floats(0, 1))
def test_the_two_parts_reach_their_own_completions_alone(seed: int, divergence: str, weight: float) -> None:
    batch = mixed(seed)
    loss, grads, _ = update_of(f"f-hal(divergence='{divergence}', hybrid_weight={weight!r})", batch)
    ordinary = batch.select(torch.arange(8))
    on = update_of(f"f-hal(divergence='{divergence}', hybrid_weight=0.0)", ordinary)
    off = update_of(f"f-hal(divergence='{divergence}', hybrid_weight=1.0)", batch)
    assert torch.allclose(loss, weight * off[0] + (1 - weight) * on[0], atol=1e-12)
    assert torch.allclose(grads["logp"][:8], (1 - weight) * on[1]["logp"], atol=1e-12)
    assert torch.allclose(grads["logp"][8:], weight * off[1]["logp"][8:], atol=1e-12)
    assert not off[1]["logp"][:8].any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, divergence=DIVERGENCES)
def test_chosen_are_never_pushed_down_and_rejected_never_up(seed: int, divergence: str) -> None:
    batch = mixed(seed, drift=1.0)
    # Pearson's other link is monotone above -2 alone.
    assert (0.1 * sequence_log_ratio(batch) > -2).all()
    _, grads, _ = update_of(f"f-hal(divergence='{divergence}', hybrid_weight=1.0)", batch)
    assert (grads["logp"][8:11][batch.mask[8:11]] < 0).all()
    assert (grads["logp"][11:][batch.mask[11:]] > 0).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_total_variation_is_a_difference_of_sigmoids(seed: int) -> None:
    batch = mixed(seed)
    loss, _, _ = update_of("f-hal(divergence='total_variation', hybrid_weight=1.0, beta=0.7)", batch)
    s = torch.sigmoid(0.7 * sequence_log_ratio(batch))
    assert torch.allclose(loss, -s[8:11].mean() + s[11:].mean(), atol=1e-12)


def test_groups_without_a_signal_leave_the_preferences() -> None:
    batch = mixed(1)
    flat = batch.replace(rewards=torch.ones_like(batch.rewards))
    _, grads, _ = update_of("f-hal", flat)
    assert not grads["logp"][:8].any()
    assert grads["logp"][8:].any()


def test_a_step_trains_on_rollouts_and_on_stored_completions(micro_root: Path) -> None:
    """The stored ones count in the loss and in nothing else: no reward, no advantage, no metric is theirs."""
    changes = {**trait("f-hal", "TRAIN"), "prompts_per_step": 3, "group_size": 4, "updates": 2}
    with micro.ready(micro_root, "f-hal(hybrid_weight=1.0)", **changes) as parts:
        result = one_step(run_of(*parts))
    assert result.batch is not None
    assert result.batch.size == len(result.rollouts) == result.metrics["rollouts/sampled"] == 12
    assert not result.batch["policy_gradient"].any()
    assert result.metrics["grad_norm"] > 0
    assert result.metrics["mismatch_max"] < 1e-4
    with micro.ready(micro_root, "f-hal(hybrid_weight=0.5)", **changes) as parts:
        again = one_step(run_of(*parts))
    assert again.batch is not None
    assert again.batch["policy_gradient"].any()
    assert again.metrics["reward/mean"] == pytest.approx(result.metrics["reward/mean"])


def test_it_can_do_without_a_preference_batch(micro_root: Path) -> None:
    with micro.ready(micro_root, "f-hal(hybrid_weight=0.0)", prompts_per_step=3, group_size=4) as parts:
        assert one_step(run_of(*parts)).metrics["grad_norm"] > 0
