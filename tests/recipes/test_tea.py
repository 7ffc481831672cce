"""TEA's identities: what is exact for a normal reward, and what the gradient weight is the gradient of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.tea import prefix_weights, raw_advantages, tail_constant
from cohort.reductions.groups import group_sum
from cohort.reductions.normal import expected_max, tail_moments
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
ALPHAS = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])


def group_of(rewards: torch.Tensor) -> Batch:
    return Batch.of(torch.ones(len(rewards), 1), group=torch.zeros(len(rewards)), rewards=rewards)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 4096), alpha=ALPHAS, mean=st.floats(-3, 3), std=st.floats(0.1, 5))
def test_the_law_is_exact_for_a_normal_reward(n: int, alpha: float, mean: float, std: float) -> None:
    lam, delta = tail_moments(alpha)
    assert mean + std * lam + tail_constant(n, alpha) * std * delta == pytest.approx(mean + std * expected_max(n))


def test_expected_maxima() -> None:
    assert expected_max(1) == pytest.approx(0, abs=1e-9)
    assert expected_max(2) == pytest.approx(1 / math.sqrt(math.pi))
    assert expected_max(3) == pytest.approx(1.5 / math.sqrt(math.pi))
    drawn = torch.randn(100_000, 64, generator=torch.Generator().manual_seed(0)).amax(1).mean()
    assert expected_max(64) == pytest.approx(float(drawn), abs=0.01)
    tail = torch.randn(400_000, generator=torch.Generator().manual_seed(1)).sort().values[-100_000:]
    assert tail_moments(0.25) == pytest.approx((float(tail.mean()), float(tail.std())), abs=0.01)


@settings(max_examples=15, deadline=None)
@given(m=st.integers(4, 32), order=st.integers(1, 4))
def test_prefix_weights_cancel_the_first_powers(m: int, order: int) -> None:
    sizes = tuple(m - j for j in range(order))
    weights = prefix_weights(sizes)
    for power in range(order):
        assert sum(w * s**-power for w, s in zip(weights, sizes, strict=True)) == pytest.approx(
            float(power == 0), abs=1e-6
        )
    assert prefix_weights((2 * m, m)) == pytest.approx([2.0, -1.0])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, alpha=ALPHAS)
def test_one_prefix_of_the_whole_group_is_tea(seed: int, alpha: float) -> None:
    batch = random_batch(seed, groups=(6, 6), binary=False)
    plain, prefix = (raw_advantages(batch, alpha=alpha, c=2.0, prefix_sizes=sizes) for sizes in (None, (6,)))
    assert torch.allclose(plain, prefix, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS, alpha=ALPHAS, scale=st.floats(0.1, 10), shift=st.floats(-10, 10), sizes=st.sampled_from([None, (6, 3)])
)
def test_invariances(seed: int, alpha: float, scale: float, shift: float, sizes: tuple[int, ...] | None) -> None:
    batch = random_batch(seed, groups=(6, 6, 6), binary=False)
    method = registry.method("tea", alpha=alpha, prefix_sizes=sizes)
    found = method.bind().assign(batch)["outcome_advantage"]
    moved = method.bind().assign(batch.replace(rewards=scale * batch.rewards + shift))["outcome_advantage"]
    assert torch.allclose(moved, scale * found, atol=1e-7)
    assert (group_sum(found, batch.groups).abs() < 1e-9).all()
    if sizes is None:
        raw = raw_advantages(batch, alpha=alpha, c=2.0, prefix_sizes=None)
        count = max(1, math.ceil(alpha * 6 - 1e-9))
        for g in range(3):
            here = batch.groups.index == g
            threshold = batch.rewards[here].sort(descending=True).values[count - 1]
            assert not raw[here & (batch.rewards <= threshold)].any()


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, alpha=st.sampled_from([0.25, 0.5, 1.0]), c=st.floats(0, 4))
def test_it_is_the_gradient_of_the_extrapolated_best(seed: int, alpha: float, c: float) -> None:
    """d/d logit_i of mu + c sigma over the upper tail of a distribution on m rewards is mean-free a_i / m.

    The quantile of a distribution on points does not move with small changes of their weights, so the mass at q is
    what keeps the tail at alpha.
    """
    m = 8
    rewards = torch.randn(m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    count = max(1, math.ceil(alpha * m - 1e-9))
    lowest = rewards.sort(descending=True).indices[count - 1]
    logits = torch.zeros(m, dtype=torch.float64, requires_grad=True)
    above = logits.softmax(0) * (rewards > rewards[lowest])
    mass = above + torch.nn.functional.one_hot(lowest, m) * (count / m - above.sum())
    mean = (mass * rewards).sum() / (count / m)
    std = ((mass * (rewards - mean) ** 2).sum() / (count / m)).sqrt()
    value = mean + c * std if count > 1 else mean
    (slope,) = torch.autograd.grad(value, logits)
    raw = raw_advantages(group_of(rewards), alpha=alpha, c=c if count > 1 else 0.0, prefix_sizes=None)
    assert torch.allclose(slope, (raw - raw.mean()) / m, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 9), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equal_rewards_teach_nothing(size: int, dtype: torch.dtype) -> None:
    batch = group_of(torch.full((size,), 0.7, dtype=dtype))
    assert not registry.method("tea").bind().assign(batch)["outcome_advantage"].any()


def test_prefixes_of_another_size_are_refused() -> None:
    method = registry.method("tea(prefix_sizes=(8, 4))")
    with pytest.raises(UsageError, match=r"a group has 5 rollouts.*begin with group_size"):
        method.bind().assign(random_batch(0, groups=(8, 5)))
    with pytest.raises(MethodError, match="must fall"):
        registry.method("tea(prefix_sizes=(4, 8))")
