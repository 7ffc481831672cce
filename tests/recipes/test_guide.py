"""Guide-GRPO's identities (arXiv:2506.13923): what is trained on, and how far the shaped ratio pushes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.guide import gammas, shaped
from cohort.reductions.groups import group_flat
from cohort.types import Batch
from tests import micro
from tests.recipes.steps import update_of
from tests.stepping import run_of, sample
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def guided_batch(seed: int) -> Batch:
    return batch_for("guide", seed=seed)


def moved(batch: Batch) -> torch.Tensor:
    """The ratio of every token, which has a gradient."""
    bound = registry.method("guide").bind()
    ratio = bound.method.stage("ratio")(batch)
    return ratio.detach().requires_grad_()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_without_guided_rollouts_it_is_grpo(seed: int) -> None:
    batch = guided_batch(seed).with_rollouts(guided=torch.zeros(12))
    ours, grads, _ = update_of("guide:-filter", batch)
    plain, expected, _ = update_of("grpo(kl_beta=0.0)", batch)
    assert torch.equal(ours, plain)
    assert torch.equal(grads["logp"], expected["logp"])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, gamma=st.floats(0.05, 1.0))
def test_at_ratio_one_a_constant_gamma_scales_the_gradient(seed: int, gamma: float) -> None:
    """gamma / (1 + gamma)^2 of GRPO's."""
    batch = guided_batch(seed).with_rollouts(guided=torch.ones(12))
    batch = batch.with_tokens(guided_logp=batch.logp.detach())
    batch = batch.replace(old_logp=batch.logp.detach())
    _, ours, _ = update_of(f"guide(shaping='constant',gamma_value={gamma}):-filter", batch)
    _, plain, _ = update_of("grpo(kl_beta=0.0)", batch)
    assert torch.allclose(ours["logp"], plain["logp"] * gamma / (1 + gamma) ** 2, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, q=st.floats(0.05, 1.0))
def test_the_shaped_ratio_lies_in_0_1_and_is_a_half_at_gamma(seed: int, q: float) -> None:
    batch = guided_batch(seed).with_rollouts(guided=torch.ones(12))
    ratio, ones = moved(batch), torch.ones(batch.mask.shape, dtype=torch.float64)
    value = -shaped(batch, ratio, ones, gamma_value=q)[batch.mask]
    assert ((value > 0) & (value < 1)).all()
    gamma = gammas(batch, ratio, shaping="percentile", gamma_value=q, gamma_min=1e-4)
    at = gamma[:, None].expand_as(ratio)
    # Its own quantile is that of equal ratios, too.
    there = batch.mask & (gamma[:, None] > 1e-4)
    assert torch.allclose(-shaped(batch, at, ones, gamma_value=q)[there], torch.tensor(0.5, dtype=torch.float64))
    assert not gamma.requires_grad


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_kept_groups_have_a_signal(seed: int) -> None:
    batch = guided_batch(seed)
    kept = batch.select(registry.method("guide").bind().keep(batch))
    assert not group_flat(kept["accuracy"], kept.groups).any()
    for shaping in ("percentile", "constant", "power", "none"):
        _, grads, _ = update_of(f"guide(shaping='{shaping}')", batch)
        assert torch.isfinite(grads["logp"]).all()


def test_ratios_that_left_the_numbers_do_no_harm() -> None:
    batch = guided_batch(3)
    far = batch.replace(logp=torch.full_like(batch.logp, -400.0))
    for shaping in ("percentile", "constant", "power", "none"):
        loss, grads, _ = update_of(f"guide(shaping='{shaping}'):-filter", far)
        assert torch.isfinite(loss)
        assert torch.isfinite(grads["logp"]).all()


def test_failed_groups_are_drawn_with_the_hint_and_trained_without(micro_root: Path) -> None:
    with micro.ready(micro_root, "guide(max_rounds=1)", group_size=2, steps=4) as (setup, optimizer, progress):
        rollouts, _, method = sample(run := run_of(setup, optimizer, progress))
        hinted = [r for r in rollouts if r.fields["guided"]]
        assert 0 < len(hinted) < len(rollouts) == 16
        assert all(r.request.context.tokens == r.prompt.tokens and r.segments[0].logp is None for r in hinted)
        batch = run.batches.with_old_logp(run.batches.of(method, rollouts), rollouts)
        guided = batch["guided"] > 0
        there = batch.mask & guided[:, None]
        # The denominator saw the hint, and old_logp did not.
        assert not torch.allclose(batch["guided_logp"][there], batch.old_logp[there], atol=1e-3)
        assert torch.allclose(batch.old_logp[~guided], batch["sampler_logp"][~guided], atol=1e-5)
        results = micro.train(setup, optimizer, progress)
    assert all(step.metrics["skipped_updates"] == 0 for step in results)


def test_some_row_has_to_have_a_hint(micro_root: Path) -> None:
    rows = [{**row, "hint": ""} for row in micro.ROWS]
    missing = pytest.raises(UsageError, match="reads the column 'hint', which no row of the training data has")
    with missing, micro.ready(micro_root, "guide", data=rows):
        pass
    rows[3] = micro.ROWS[3]
    with micro.ready(micro_root, "guide", data=rows, group_size=2) as parts:
        rollouts, _, _ = sample(run_of(*parts))
    assert {r.prompt.row["prompt"] for r in rollouts if r.fields["guided"]} <= {"d"}
