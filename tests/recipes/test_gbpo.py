"""GBPO: the ratio is pulled to a target."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes import ratio
from cohort.recipes.gbpo import median_critic_loss
from cohort.reductions.groups import group_quantile
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def gradient(method: str, batch: Batch) -> Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


def target(batch: Batch, **hyper: float) -> Tensor:
    return registry.method("gbpo", **hyper).bind().assign(batch)["target_ratio"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-3, 10), st.floats(0.01, 0.9), st.floats(0.01, 2))
def test_the_target_lies_within_the_bounds_on_the_side_of_the_median(
    seed: int, temperature: float, low: float, high: float
) -> None:
    batch = random_batch(seed, binary=False)
    found = target(batch, temperature=temperature, clip_low=low, clip_high=high)
    assert bool((found >= 1 - low - 1e-12).all())
    assert bool((found <= 1 + high + 1e-12).all())
    side = batch.rewards - group_quantile(batch.rewards, batch.groups, 0.5)[batch.groups.index]
    middle = 1 + (high - low) / 2
    assert torch.equal((found - middle).sign()[side != 0], side.sign()[side != 0])
    symmetric = target(batch, temperature=temperature, clip_low=low, clip_high=low)
    std = batch.rewards.new_tensor([batch.rewards[batch.group == g].std() for g in batch.group])
    assert torch.allclose(symmetric, 1 + low * torch.tanh(side / (std + 1e-6) / temperature / 2))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_inside_the_bounds_a_saturated_target_gives_the_unclipped_gradient(seed: int) -> None:
    batch = random_batch(seed, drift=0.02)
    made = registry.method("gbpo")
    ready = made.bind().assign(batch)
    advantages, found = ready.advantages, ready["target_ratio"][:, None]
    rho = ratio.token(batch)
    inside = batch.mask & ((rho - 1).abs() < 0.2) & ((found - 1).abs() > 0.199) & (advantages != 0)
    weight = made.bind().weights(batch)
    got = gradient("gbpo", batch)
    assert torch.allclose(got[inside], (-advantages * rho * weight)[inside])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_beyond_the_bounds_the_ratio_is_pulled_back(seed: int) -> None:
    batch = random_batch(seed, drift=1.0)
    advantages = registry.method("gbpo").bind().assign(batch).advantages
    rho = ratio.token(batch)
    beyond = batch.mask & (((rho > 1.2) & (advantages > 0)) | ((rho < 0.8) & (advantages < 0)))
    clipped, pulled = gradient("grpo(kl_beta=0.0, std_ddof=1)", batch), gradient("gbpo", batch)
    assert not clipped[beyond].any()
    # Descent lowers a ratio that is too high, and raises one that is too low.
    assert torch.equal(pulled[beyond].sign(), (rho - 1)[beyond].sign())


@pytest.mark.parametrize(("right", "pushed"), [(1, {1.0}), (3, {0.0}), (2, {0.0, 1.0})])
def test_the_majority_is_held_where_it_is(right: int, pushed: set[float]) -> None:
    batch = random_batch(0, groups=(4,), empty=False)
    rewards = (torch.arange(4) < right).double()
    batch = batch.replace(rewards=rewards, logp=batch._tokens["old_logp"])
    made = target(batch)
    want = {1.0: 1.2, 0.0: 0.8}
    assert made.tolist() == pytest.approx([want[r] if r in pushed else 1.0 for r in rewards.tolist()])
    moved = gradient("gbpo", batch).abs().sum(1) > 0
    assert moved.tolist() == [r in pushed for r in rewards.tolist()]


@pytest.mark.parametrize("reward", [0.0, 0.7, 1e6])
def test_equal_rewards_give_nothing(reward: float) -> None:
    batch = random_batch(2)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, reward))
    assert not gradient("gbpo", batch).any()


def test_a_group_of_one_follows_its_reward() -> None:
    batch = random_batch(2, groups=(1, 1, 1), empty=False)
    batch = batch.replace(rewards=torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64))
    ready = registry.method("gbpo").bind().assign(batch)
    assert torch.allclose(ready["outcome_advantage"], batch.rewards / (1 + 1e-6))
    assert ready["target_ratio"].tolist() == pytest.approx([1.2, 1.0, 0.8])


def test_without_the_standard_deviation_rewards_are_only_centred() -> None:
    batch = random_batch(2, binary=False)
    made = registry.method("gbpo", scale_by_std=False)
    want = registry.method("dr-grpo").bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(made.bind().assign(batch)["outcome_advantage"], want)


def test_the_target_stays_when_the_advantage_is_another_methods() -> None:
    mixed = registry.method("gbpo:-advantage+dr-grpo:advantage")
    batch = random_batch(4, binary=False)
    assert torch.equal(mixed.bind().assign(batch)["target_ratio"], target(batch))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9))
def test_the_second_critic_is_least_at_the_median(values: list[float]) -> None:
    returns = torch.tensor(values, dtype=torch.float64) * 1e3
    middle = returns.sort().values[(len(values) - 1) // 2 : len(values) // 2 + 1].mean()
    at = [median_critic_loss(returns, middle + by) for by in (-500.0, 0.0, 500.0)]
    assert at[1] <= at[0] + 1e-9
    assert at[1] <= at[2] + 1e-9
