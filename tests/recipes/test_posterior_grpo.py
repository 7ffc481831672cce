"""Posterior-GRPO: the quality of the reasoning counts only where the outcome is right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import BoundMethod
from cohort.reductions.scores import pair_loss
from cohort.signals.components import component
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.types import Batch
from tests.traits import batch_for, gradients, info_for, with_leaves

SEEDS = st.integers(0, 10_000)


def bound(batch: Batch, **hyper: Any) -> BoundMethod:
    return registry.method("posterior-grpo", **hyper).bind(info=info_for(batch, "posterior-grpo"))


def named(batch: Batch, name: str) -> Tensor:
    return component(batch, name, info_for(batch, "posterior-grpo"))


def rewards(batch: Batch, **hyper: Any) -> Tensor:
    return bound(batch, **hyper).shape(batch).rewards


def scored(batch: Batch, change: Tensor) -> Batch:
    """The batch with the score of the reasoning changed."""
    parts = batch["reward_components"].clone()
    parts[:, -1] += change
    return batch.replace(reward_components=parts)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_right_beats_wrong_for_equal_format(seed: int) -> None:
    batch = batch_for("posterior-grpo", seed=seed)
    got, right, form = rewards(batch), batch["accuracy"] == 1, named(batch, "format")
    assert bool((got[~right] <= 1).all())
    assert bool((got[right] >= 1 + form[right]).all())
    assert bool((got[right] <= 2 + form[right]).all())
    unscored = scored(batch, -named(batch, "thinking"))
    assert torch.equal(rewards(unscored), form + batch["accuracy"])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_score_of_a_failed_rollout_changes_nothing(seed: int) -> None:
    batch, leaves = with_leaves(registry.method("posterior-grpo"), batch_for("posterior-grpo", seed=seed))
    noise = torch.rand(batch.size, generator=torch.Generator().manual_seed(seed)).double()
    other = scored(batch, noise * (1 - batch["accuracy"]))
    method = bound(batch)
    losses = [method.loss(method.prepare(b).batch).total for b in (batch, other)]
    assert torch.equal(*losses)
    assert torch.equal(*(gradients(loss, leaves)["logp"] for loss in losses))
    changed = rewards(other, gate=False) != rewards(batch, gate=False)
    assert torch.equal(changed, (batch["accuracy"] == 0) & (noise > 0))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_score_ranks_right_rollouts_and_leaves_wrong_ones_without_a_signal(seed: int) -> None:
    batch = batch_for("posterior-grpo", seed=seed)
    same = batch["reward_components"].clone()
    same[:, -2] = 1.0
    method = bound(batch)
    right = batch.replace(accuracy=torch.ones(batch.size).double(), reward_components=same)
    got, score = method.prepare(right).batch["outcome_advantage"], named(right, "thinking")
    for group in range(3):
        rows = batch.groups.index == group
        assert torch.equal(got[rows].argsort(), score[rows].argsort())
    wrong = batch.replace(accuracy=torch.zeros(batch.size).double(), reward_components=same)
    assert not method.prepare(wrong).batch.advantages.any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_pair_loss_pushes_scores_apart(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    better, worse = (torch.randn(5, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    up, down = torch.autograd.grad(pair_loss(better, worse), (better, worse))
    assert bool((up < 0).all())
    assert torch.allclose(up + down, torch.zeros(5).double())


def test_a_run_without_the_rewards_is_refused_before_anything_is_sampled(base: dict[str, Any]) -> None:
    """The run has a reward for the format, but none for the reasoning."""
    with pytest.raises(UsageError, match=r"reads the reward 'thinking', which this run lacks"):
        prepare(make_config({**base, "method": "posterior-grpo"}), log=lambda _: None)
