"""MDPO: an unclipped surrogate and a growing pull to the policy before the step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes import surrogate
from cohort.axes.advantage import zscore
from cohort.methods import Method, use
from cohort.recipes.mdpo import divergence, scheduled
from cohort.training.loop import one_step
from cohort.types import Batch, StepInfo
from tests import micro
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken
from tests.stepping import run_of

SEEDS = st.integers(0, 10_000)
SIZES = st.floats(0.05, 3)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES)
def test_on_policy_it_is_reinforce_whatever_the_step_size(seed: int, size: float) -> None:
    batch = on_policy(random_batch(seed))
    _, grad = taken("mdpo", batch, step_size=size)
    weight = registry.method("mdpo").bind().weights(batch)
    assert torch.allclose(grad, -zscore(batch)[:, None] * weight)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SIZES)
def test_the_gradient_is_the_papers(seed: int, size: float) -> None:
    batch = random_batch(seed)
    _, grad = taken("mdpo", batch, step_size=size)
    difference = batch.logp - batch.old_logp
    expected = difference.exp() * (difference / size - zscore(batch)[:, None])
    assert torch.allclose(grad, expected * registry.method("mdpo").bind().weights(batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_an_endless_step_is_the_unclipped_surrogate(seed: int) -> None:
    batch = random_batch(seed)
    loss, grad = taken("mdpo", batch, step_size=1e12)
    free, free_grad = taken(Method(surrogate=use(surrogate.unclipped)), batch)
    assert torch.allclose(loss, free)
    assert torch.allclose(grad, free_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_sampled_kl_has_the_full_one_as_its_mean_under_the_old_policy(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    new, old = (torch.randn(7, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    every = Batch.of(torch.ones(7, 1), group=torch.arange(7), logp=new[:, None], old_logp=old[:, None])
    every = every.with_tokens(logits=new.expand(7, 1, 7), old_logits=old.expand(7, 1, 7))
    sampled, full = divergence(every), divergence(every, kl="full")
    assert torch.allclose((old.exp() * sampled[:, 0]).sum(), full[0, 0])
    assert bool((sampled >= 0).all())


def test_the_pull_grows_from_one_to_the_number_of_steps() -> None:
    batch = random_batch(2)
    method = registry.method("mdpo")

    def pull(step: int) -> torch.Tensor:
        bound = method.bind(info=StepInfo(step=step, steps=8))
        return bound.loss(bound.prepare(batch).batch).regularizers["proximity"]

    for step in range(8):
        assert scheduled(step, 8) > 0
        assert torch.allclose(pull(step), pull(0) * 8 / (8 - step))
    assert torch.allclose(pull(7), 8 * pull(0))


def test_in_training_the_kl_appears_at_the_second_update(micro_root: Path) -> None:
    """Over the vocabulary, and estimated from the tokens drawn, which is near it."""
    pull = {}
    for kl, epochs in (("full", 1), ("sampled", 2), ("full", 2)):
        with micro.ready(micro_root, f"mdpo(kl='{kl}')", epochs=epochs, lr=1e-3) as (setup, optimizer, progress):
            pull[kl, epochs] = one_step(run_of(setup, optimizer, progress)).metrics["loss/proximity"]
    assert pull["full", 1] == pytest.approx(0.0, abs=1e-6)
    assert pull["full", 2] > 1e-4
    assert pull["sampled", 2] == pytest.approx(pull["full", 2], rel=0.35)
