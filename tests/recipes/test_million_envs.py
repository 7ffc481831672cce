"""PPO around a moving average: its identities, and what larger steps do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.surrogate import clipped
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)


def loss_of(batch: Batch, **hyper: object) -> tuple[Batch, Tensor, dict[str, Tensor]]:
    """The batch with its advantages, the policy's loss, and the gradients by field."""
    method = registry.method("million-envs", **hyper)
    made, leaves = with_leaves(method, batch)
    made = method.bind().prepare(made).batch
    loss = method.bind().loss(made)
    return made, loss.policy.detach(), gradients(loss.total, leaves)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.05, 0.5))
def test_around_the_policy_that_drew_it_is_ppo(seed: int, clip: float) -> None:
    batch = batch_for("million-envs", seed=seed)
    batch = batch.with_tokens(ema_logp=batch["sampler_logp"])
    made, loss, _ = loss_of(batch, whiten="none", clip_low=clip, clip_high=clip)
    ratio = (made.logp - made["sampler_logp"]).exp().detach()
    want = clipped(ratio, made.advantages, clip, clip)[made.mask].mean()
    assert torch.allclose(loss, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["none", "minibatch"]))
def test_around_itself_it_never_clips(seed: int, whiten: str) -> None:
    """What d = 0 comes to: an importance-weighted gradient."""
    batch = batch_for("million-envs", seed=seed, drift=2.0)
    batch = batch.with_tokens(ema_logp=batch.logp.detach())
    made, _, grads = loss_of(batch, whiten=whiten, cap=1e6)
    acting = made.mask & (made.advantages != 0)
    assert (grads["logp"][acting] != 0).all()
    if whiten == "none":
        ratio = (made.logp - made["sampler_logp"]).exp().detach()
        want = torch.where(made.mask, -ratio * made.advantages, 0.0) / made.mask.sum()
        assert torch.allclose(grads["logp"], want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1.0, 3.0))
def test_no_weight_is_above_the_cap(seed: int, cap: float) -> None:
    batch = batch_for("million-envs", seed=seed, drift=2.0)
    method = registry.method("million-envs", cap=cap)
    ratio = method.bind().loss(method.bind().prepare(batch).batch).ratio
    assert ratio is not None
    assert float(ratio.max()) <= cap * (1 + 1e-12)


def test_what_nothing_drew_weighs_one() -> None:
    batch = batch_for("million-envs", seed=3)
    batch = batch.with_tokens(sampler_logp=torch.full_like(batch.logp, math.nan))
    made, _, grads = loss_of(batch, whiten="none", clip_low=1.0, clip_high=1e9)
    assert torch.allclose(grads["logp"], torch.where(made.mask, -made.advantages, 0.0) / made.mask.sum())


def test_equal_advantages_push_nothing() -> None:
    batch = batch_for("million-envs", seed=5)
    flat = batch.replace(advantages=torch.where(batch.mask, 2.0, 0.0).double())
    method = registry.method("million-envs")
    flat, leaves = with_leaves(method, flat.with_tokens(returns=flat["old_values"]))
    assert not gradients(method.bind().loss(flat).policy, leaves)["logp"].any()


def test_the_average_stands_behind_the_policy_at_every_update(micro_root: Path) -> None:
    """The first update is made with the average of one policy; later ones with what has moved since."""
    with micro.ready(micro_root, "million-envs(decay=0.5)", steps=2, group_size=2, updates=2) as made:
        setup, optimizer, progress = made
        seen = [p.detach().double().clone() for p in setup.policy.trainable()]
        weights, total = [seen], 1.0
        average = [p.clone() for p in seen]
        plain = optimizer.step

        def step() -> None:
            nonlocal total
            plain()
            now = [p.detach().double().clone() for p in setup.policy.trainable()]
            total = 0.5 * total + 1
            for own, new in zip(average, now, strict=True):
                own.lerp_(new, 1 / total)
            weights.append(now)

        optimizer.step = step  # type: ignore[method-assign]
        result = [one_step(run_of(setup, optimizer, progress)) for _ in range(2)][-1]
        held = list(setup.policy.roles.models["ema"].parameters())
        assert len(weights) == 5
        assert all(torch.allclose(a.double(), b, atol=1e-6) for a, b in zip(held, average, strict=True))
        assert any(not torch.allclose(a.double(), b, atol=1e-5) for a, b in zip(held, weights[-1], strict=True))
        assert result.metrics["divergence/ratio"] > 0
        tokens = result.metrics["divergence/ratio"] * result.metrics["divergence/kl"]
        assert result.batch is not None
        assert tokens == pytest.approx(int(result.batch.mask.sum()))


def test_a_step_with_one_update_says_nothing_of_its_divergence(micro_root: Path) -> None:
    with micro.ready(micro_root, "million-envs", steps=1, group_size=2) as (setup, optimizer, progress):
        assert "divergence/ratio" not in one_step(run_of(setup, optimizer, progress)).metrics
