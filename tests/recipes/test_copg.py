"""CoPG: differences of rewards fitted by differences of log ratios."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.objective import sequence_log_ratio
from cohort.methods import MethodError
from cohort.recipes.copg import less_others, regularized_reward
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)
BETAS = st.floats(0.05, 2)


def pairs(batch: Batch) -> list[list[tuple[int, int]]]:
    """The unordered pairs of each group."""
    members = [(batch.group == label).nonzero()[:, 0].tolist() for label in batch.groups.labels]
    return [[(i, k) for n, i in enumerate(group) for k in group[n + 1 :]] for group in members]


def by_pairs(batch: Batch, beta: float, form: str) -> Tensor:
    """The loss as the paper writes it, pair by pair."""
    u, r = sequence_log_ratio(batch), batch.rewards
    total = torch.zeros((), dtype=torch.float64)
    for group in pairs(batch):
        for i, k in group:
            du, dr = u[i] - u[k], r[i] - r[k]
            each = -(dr - beta / 2 * du) * du if form == "product" else (dr - beta * du) ** 2 / (2 * beta)
            total = total + each / len(group)
    return total / batch.groups.count


@settings(max_examples=15, deadline=None)
@given(SEEDS, BETAS, st.sampled_from(["product", "square"]))
def test_group_sums_equal_the_mean_over_pairs(seed: int, beta: float, form: str) -> None:
    batch = random_batch(seed, groups=(4, 1, 3, 2), binary=False)
    loss, _ = taken("copg", batch, beta=beta, form=form)
    assert torch.allclose(loss, by_pairs(batch, beta, form))


@settings(max_examples=15, deadline=None)
@given(SEEDS, BETAS)
def test_both_forms_have_the_gradient_of_the_advantages(seed: int, beta: float) -> None:
    batch = random_batch(seed, groups=(4, 1, 3, 2), binary=False)
    _, product = taken("copg", batch, beta=beta)
    _, square = taken("copg", batch, beta=beta, form="square")
    assert torch.allclose(product, square)
    advantages = less_others(regularized_reward(batch, beta=beta), batch.groups)
    assert torch.allclose(group_sum(advantages, batch.groups), torch.zeros(4, dtype=torch.float64), atol=1e-12)
    size = torch.bincount(batch.groups.index)[batch.groups.index]
    each = -2 * advantages / size / batch.groups.count
    assert torch.allclose(product, torch.where(batch.mask, each[:, None], 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_beta_it_is_twice_rloo(seed: int) -> None:
    batch = random_batch(seed)
    _, grad = taken("copg", batch, beta=0.0)
    _, rloo = taken("rloo", batch, kl_beta=0.0)
    assert torch.allclose(grad, 2 * rloo)


@settings(max_examples=15, deadline=None)
@given(SEEDS, BETAS)
def test_pairs_with_rewards_half_apart_are_ipo(seed: int, beta: float) -> None:
    batch = random_batch(seed, groups=(2, 2, 2), interleave=False)
    batch = batch.replace(rewards=torch.tensor([0.25, -0.25] * 3, dtype=torch.float64))
    u = sequence_log_ratio(batch)
    ipo = beta / 2 * (u[::2] - u[1::2] - 1 / (2 * beta)) ** 2
    assert torch.allclose(taken("copg", batch, beta=beta, form="square")[0], ipo.mean())


@settings(max_examples=15, deadline=None)
@given(SEEDS, BETAS, st.floats(-3, 3))
def test_the_gradient_vanishes_just_where_the_regularised_rewards_agree(seed: int, beta: float, level: float) -> None:
    batch = random_batch(seed, binary=False, empty=False)
    first = torch.zeros_like(batch.mask)
    first[:, 0] = True
    want = (batch.rewards - level) / beta
    at = batch.replace(logp=batch._tokens["ref_logp"] + torch.where(first, want[:, None], 0.0))
    assert torch.allclose(taken("copg", at, beta=beta)[1], torch.zeros_like(batch.logp), atol=1e-10)
    off = at.replace(rewards=at.rewards + (torch.arange(batch.size) == 0))
    assert bool(taken("copg", off, beta=beta)[1].abs().max() > 1e-6)


def test_equal_rewards_on_the_reference_give_exactly_nothing() -> None:
    batch = random_batch(4)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, 0.7), logp=batch._tokens["ref_logp"])
    loss, grad = taken("copg", batch)
    assert float(loss) == 0
    assert not grad.any()


def test_no_sampling_policy_is_needed_and_the_square_form_needs_a_beta() -> None:
    assert registry.method("copg").needs(loss=True) == {"ref_logp"}
    with pytest.raises(MethodError, match="divides by beta"):
        registry.method("copg", beta=0.0, form="square")
