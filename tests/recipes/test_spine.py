"""SPINE: majority labels train the tokens of high entropy, whose entropy is kept in a band."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.methods import Method, MethodError
from cohort.types import Batch
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
FRACTIONS = st.sampled_from([0.2, 0.3, 0.5, 1.0])
OFF = {"lambda_low": 0.0, "lambda_high": 0.0, "kl_beta": 0.0}


def ran(method: Method, batch: Batch) -> tuple[Batch, Tensor, dict[str, Tensor]]:
    batch, leaves = with_leaves(method, batch)
    made = method.bind().prepare(batch).batch
    loss = method.bind().loss(made).total
    return made, loss.detach(), gradients(loss, leaves)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_all_tokens_without_band_and_kl_are_the_majority_vote(seed: int) -> None:
    batch = batch_for("spine", seed=seed)
    _, loss, grads = ran(registry.method("spine", fork_fraction=1.0, **OFF), batch)
    _, want, wanted = ran(registry.method("ttrl", n_samples=99), batch)
    assert torch.allclose(loss, want)
    assert torch.allclose(grads["logp"], wanted["logp"])


@settings(max_examples=15, deadline=None)
@given(SEEDS, FRACTIONS)
def test_only_the_tokens_of_highest_entropy_are_trained(seed: int, fraction: float) -> None:
    batch = batch_for("spine", seed=seed)
    made, _, grads = ran(registry.method("spine", fork_fraction=fraction), batch)
    forks, entropy = made.loss_mask, batch["old_entropy"]
    assert not any(grad[~forks].any() for grad in grads.values())
    assert not (forks & ~batch.mask).any()
    for row in range(batch.size):
        count, inside = int(batch.mask[row].sum()), entropy[row][forks[row]]
        assert inside.numel() == (max(1, -(-round(10 * fraction) * count // 10)) if count else 0)
        outside = entropy[row][batch.mask[row] & ~forks[row]]
        if inside.numel() and outside.numel():
            assert inside.min() >= outside.max()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_the_band_lowers_entropy_above_it_and_raises_it_below(seed: int, low: float, high: float) -> None:
    """A unanimous group has no advantage, but the band still acts; a token that is alone, or on an edge, is left."""
    batch = batch_for("spine", seed=seed).with_rollouts(answer_id=torch.zeros(12, dtype=torch.int64))
    method = registry.method("spine", fork_fraction=1.0, lambda_low=low, lambda_high=high, kl_beta=0.0)
    made, _, grads = ran(method, batch)
    assert not grads["logp"].any()
    entropy, seen = batch["entropy"], 0
    for row in range(batch.size):
        values, push = entropy[row][made.loss_mask[row]], grads["entropy"][row][made.loss_mask[row]]
        if not values.numel():
            continue
        edges = torch.quantile(values, torch.tensor([0.1, 0.5], dtype=torch.float64))
        above, below = values > edges[1] + 1e-12, values < edges[0] - 1e-12
        share = values.numel() * batch.size
        assert torch.allclose(push[above], torch.tensor(high / share).double())
        assert torch.allclose(push[below], torch.tensor(-low / share).double())
        assert not push[(values > edges[0] + 1e-12) & (values < edges[1] - 1e-12)].any()
        seen += int(above.sum() + below.sum()) if values.numel() > 1 else 0
        assert values.numel() > 1 or not push.any()
    assert seen > 0


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_kl_term_acts_on_the_same_tokens(seed: int) -> None:
    batch = batch_for("spine", seed=seed)

    def loss(**hyper: Any) -> Tensor:
        method = registry.method("spine", **{**OFF, **hyper})
        return method.bind().loss(method.bind().prepare(batch).batch).total

    made = registry.method("spine").bind().prepare(batch).batch
    k3 = (made.ref_logp - made.logp).exp() - (made.ref_logp - made.logp) - 1
    forks = made.loss_mask.double()
    by_hand = ((forks * k3).sum(1) / forks.sum(1).clamp(min=1)).mean()
    assert torch.allclose(loss(kl_beta=0.3) - loss(), 0.3 * by_hand)


def test_the_label_may_be_that_of_the_others() -> None:
    batch = batch_for("spine", seed=1).with_rollouts(answer_id=torch.arange(12))
    assert registry.method("spine").bind().shape(batch).rewards.sum() == 3
    assert registry.method("spine(leave_one_out=True)").bind().shape(batch).rewards.sum() == 0
    with pytest.raises(MethodError, match="the band is empty"):
        registry.method("spine(q_low=0.6,q_high=0.5)")
    assert "entropy" not in registry.method("spine", **OFF).needs(loss=True)
