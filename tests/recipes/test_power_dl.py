"""POWER-DL's identities, and where its labels are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from cohort import registry
from cohort.recipes.power_dl import deltas
from cohort.reductions.groups import token_mean
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.steps import pairs_batch, update_of

SEEDS = st.integers(0, 10_000)
KEY = "objective/robust_preference"


def pairs(seed: int, **kwargs: Any) -> Batch:
    return pairs_batch(random_batch(seed, groups=(10,), **kwargs))


def labelled(labels: Tensor) -> dict[str, Any]:
    return {KEY: {"labels": labels}}


def after(method: str, batch: Batch, labels: Tensor) -> Tensor:
    made = registry.method(method)
    return made.bind(labelled(labels)).on_step_end(batch, [], None)[KEY]["labels"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0.1, 5))
def test_a_stationary_label_takes_the_gradient_away(seed: int, beta: float) -> None:
    batch = pairs(seed)
    delta, _, _ = deltas(batch, beta=beta, weight="inverse_length")
    _, grads, _ = update_of(f"power-dl(beta={beta!r}, eta=0.0)", batch, labelled(delta.sigmoid()))
    assert torch.allclose(grads["logp"], torch.zeros_like(grads["logp"]), atol=1e-12)
    _, grads, _ = update_of(f"power-dl(beta={beta!r}, eta=0.0)", batch)
    assert grads["logp"].any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0.1, 5))
def test_hard_labels_without_the_anchor_are_simpo_with_a_margin_by_length(seed: int, beta: float) -> None:
    batch = pairs(seed, empty=False)
    loss, _, _ = update_of(f"power-dl(beta={beta!r}, eta=0.0)", batch)
    mean, weight = token_mean(batch.logp, batch.mask), 1 / batch.mask.sum(1)
    margin = -beta * (weight[0::2] - weight[1::2])
    simpo = -logsigmoid(beta * (mean[0::2] - mean[1::2]) - margin).mean()
    assert torch.allclose(loss, simpo, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, gamma=st.floats(0, 1))
def test_labels_move_towards_what_the_policy_thinks_and_stay_probabilities(seed: int, gamma: float) -> None:
    batch = pairs(seed)
    before = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).clamp(min=1e-3)
    labels = after(f"power-dl(gamma={gamma!r})", batch, before)
    delta, _, counts = deltas(batch, beta=2.0, weight="inverse_length")
    want = torch.where(counts, (1 - gamma) * before[:5] + gamma * delta.sigmoid(), before[:5])
    assert torch.allclose(labels[:5], want, atol=1e-12)
    # Rows that the step had no pair of keep theirs.
    assert torch.equal(labels[5:], before[5:])
    assert ((labels > 0) & (labels <= 1)).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_pairs_of_one_group_share_their_rows_label(seed: int) -> None:
    """The label moves by the mean over the pairs, and the loss reads it for each of them."""
    batch = random_batch(seed, groups=(5, 4))
    delta, better, counts = deltas(batch, beta=2.0, weight="inverse_length")
    labels = after("power-dl(gamma=0.3)", batch, torch.tensor([0.9, 0.4], dtype=torch.float64))
    for row, start in ((0, 0.9), (1, 0.4)):
        own = delta[counts & (batch["row"][better] == row)].sigmoid()
        want = 0.7 * start + 0.3 * float(own.mean()) if own.numel() else start
        assert float(labels[row]) == pytest.approx(want, abs=1e-12)


def test_the_anchor_alone_pushes_chosen_completions_up() -> None:
    batch = pairs(4, empty=False)
    delta, _, _ = deltas(batch, beta=2.0, weight="inverse_length")
    _, grads, _ = update_of("power-dl(eta=0.1)", batch, labelled(delta.sigmoid()))
    chosen, rejected = grads["logp"][0::2], grads["logp"][1::2]
    assert (chosen[batch.mask[0::2]] < 0).all()
    assert torch.allclose(rejected, torch.zeros_like(rejected), atol=1e-12)


def test_a_pair_with_an_empty_side_is_left_out() -> None:
    batch = pairs(5, empty=False)
    mask = batch.mask.clone()
    mask[3] = False
    hollow = batch.replace(mask=mask)
    rest = torch.tensor([i for i in range(batch.size) if i not in (2, 3)])
    assert torch.allclose(update_of("power-dl", hollow)[0], update_of("power-dl", batch.select(rest))[0], atol=1e-12)
    assert after("power-dl", hollow, torch.ones(5, dtype=torch.float64))[1] == 1
