"""RLUF: the predicted probability of a reaction beside helpfulness and safety."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.reductions.scores import label_loss, probability
from cohort.types import Batch
from tests.traits import batch_for, info_for

SEEDS = st.integers(0, 10_000)


def rewards(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("rluf", **hyper).bind(info=info_for(batch, "rluf")).shape(batch).rewards


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_pull_of_reactions_is_bounded_by_their_weight(seed: int) -> None:
    batch = batch_for("rluf", seed=seed)
    helpful, safe, love = batch["reward_components"][:, -3:].unbind(1)
    without = rewards(batch, w_love=0.0)
    assert torch.allclose(without, 0.6 * helpful + 0.3 * safe)
    pull = rewards(batch, w_love=0.25) - without
    assert bool(((pull >= 0) & (pull <= 0.25)).all())
    assert torch.allclose(rewards(batch, w_help=0.0, w_safe=0.0, w_love=1.0), love)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_gradient_of_the_model_of_reactions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (4 * torch.randn(9, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 2, (9,), generator=generator)
    label_loss(scores, labels).backward()
    assert scores.grad is not None
    assert torch.allclose(scores.grad, (probability(scores.detach()) - labels) / 9)
    # Of labels that are all 0 there is a loss still.
    assert float(label_loss(scores.detach(), torch.zeros(9))) > 0
