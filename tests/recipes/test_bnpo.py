"""BNPO's identities: what the normaliser is for fixed parameters, and what it never depends on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.advantage import centred
from cohort.methods import MethodError
from cohort.recipes.bnpo import fitted, weights
from cohort.reductions.groups import group_sum
from cohort.types import Batch, StepInfo
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3, 8), (3, 3), (6, 2, 1)])


def advantages(batch: Batch, info: StepInfo | None = None, **hyper: object) -> torch.Tensor:
    return registry.method("bnpo", **hyper).bind(info=info).assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES)
def test_both_parameters_one_is_reinforce_with_a_baseline(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    assert torch.allclose(advantages(batch, alpha_beta=(1.0, 1.0)), centred(batch), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES)
def test_both_parameters_three_halves_is_grpo(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    grpo = registry.method("grpo", adv_eps=1e-15).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(advantages(batch, alpha_beta=(1.5, 1.5)), math.pi / 8 * grpo, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, binary=st.booleans())
def test_groups_sum_to_zero_with_one_weight_each(seed: int, groups: tuple[int, ...], binary: bool) -> None:
    batch = random_batch(seed, groups=groups)
    if not binary:
        batch = batch.replace(rewards=batch["reward_components"][:, 1])
    found, distance = advantages(batch), centred(batch)
    scale = found.abs().max().clamp(min=1)
    assert (group_sum(found / scale, batch.groups).abs() < 1e-9).all()
    for g in range(batch.groups.count):
        here = (batch.groups.index == g) & (distance.abs() > 1e-9)
        weight = (found / torch.where(here, distance, 1.0))[here]
        assert torch.allclose(weight, weight[:1].expand_as(weight), rtol=1e-7)
        assert (weight > 0).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, low=st.floats(-5, 0), width=st.floats(0.5, 4))
def test_the_range_of_the_rewards_does_not_matter(seed: int, low: float, width: float) -> None:
    batch = random_batch(seed, groups=(4, 5, 3))
    moved = batch.replace(rewards=low + width * batch.rewards)
    assert torch.allclose(advantages(moved, reward_min=low, reward_max=low + width), advantages(batch), atol=1e-6)


def test_the_density_is_that_of_the_beta_distribution() -> None:
    p = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    for a, b in ((1.0, 1.0), (2.5, 1.2), (40.0, 60.0)):
        density = torch.distributions.Beta(torch.tensor(a).double(), torch.tensor(b).double()).log_prob(p).exp()
        alpha, beta = torch.tensor(a).double(), torch.tensor(b).double()
        assert torch.allclose(weights(p, alpha, beta, cap=math.inf), 1 / density)
        assert torch.allclose(
            weights(p.float(), alpha.float(), beta.float(), cap=1e6).double(), (1 / density).clamp(max=1e6), rtol=1e-4
        )


def test_moments_of_a_large_sample_are_the_parameters() -> None:
    torch.manual_seed(0)
    p = torch.distributions.Beta(torch.tensor(2.0).double(), torch.tensor(5.0).double()).sample((200_000, 1))
    a, b = fitted(p, torch.ones_like(p, dtype=torch.bool))
    assert float(a) == pytest.approx(2.0, rel=0.02)
    assert float(b) == pytest.approx(5.0, rel=0.02)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_decomposition_is_the_mean_over_components(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 4, 4))
    each = [advantages(batch.replace(rewards=batch["reward_components"][:, k])) for k in range(2)]
    assert torch.allclose(advantages(batch, decompose=True), (each[0] + each[1]) / 2, atol=1e-9)
    # A component of weight 0 has no say.
    first = advantages(batch, StepInfo(reward_weights=(1.0, 0.0)), decompose=True)
    assert torch.allclose(first, each[0], atol=1e-9)


def test_a_component_that_does_not_apply_says_nothing() -> None:
    batch = random_batch(4, groups=(4, 4, 4))
    parts = batch["reward_components"].clone()
    parts[batch.groups.index == 1, 1] = torch.nan
    second = StepInfo(reward_weights=(0.0, 1.0))
    found = advantages(batch.replace(reward_components=parts), second, decompose=True)
    rest = batch.select(batch.groups.index != 1)
    other = advantages(rest, second, decompose=True)
    assert not found[batch.groups.index == 1].any()
    assert torch.allclose(found[batch.groups.index != 1], other)


def test_an_impossible_range_is_refused() -> None:
    with pytest.raises(MethodError, match="reward_min=1 must be below reward_max=1"):
        registry.method("bnpo(reward_min=1.0)")
    with pytest.raises(MethodError, match="two positive numbers"):
        registry.method("bnpo(alpha_beta=(1.0, 0.0))")
