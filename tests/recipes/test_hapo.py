"""HAPO: temperature, advantage and clip range by the entropy of the token."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.hapo import by_nature, token_average
from cohort.reductions.groups import group_flat, group_sum
from cohort.signals.entropy import EntropyScale, EntropyTemperature, entropy_scale, entropy_temperature, scaled_entropy
from cohort.types import Batch, Request
from cohort.types.access import Sampler
from tests.helpers import prompt_of, random_batch, request_of, rollout_of, tiny_policy
from tests.traits import gradients

SEEDS = st.integers(0, 10_000)


def gradient(batch: Batch, method: str) -> torch.Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    batch = batch.with_tokens(logp=logp)
    states = made.bind(made.init(size=4)).on_rollouts(batch, [])
    return gradients(made.bind(states).loss(made.bind(states).prepare(batch).batch).total, {"logp": logp})["logp"]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_alpha_and_beta_it_is_token_mean_ppo_with_the_token_advantage(seed: int) -> None:
    batch = random_batch(seed)
    plain = batch.replace(rewards=token_average(batch, fallback_limit=5.0, eps=1e-6)[0], group=torch.arange(batch.size))
    made = registry.method("grpo(kl_beta=0.0, aggregation='token')")
    logp = batch._tokens["logp"].clone().requires_grad_()
    ready = plain.with_tokens(logp=logp).replace(advantages=plain.rewards[:, None].expand(batch.mask.shape))
    expected = gradients(made.bind().loss(ready).total, {"logp": logp})["logp"]
    got = gradient(batch, "hapo(clip_alpha=0.0, adv_beta=0.0, temperature_tau=0.0, dual_clip=1e9)")
    assert torch.allclose(got, expected)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_token_advantages_sum_to_zero_over_the_tokens_of_a_group(seed: int) -> None:
    batch = random_batch(seed, groups=(5, 4, 1), binary=False)
    value, fallback = token_average(batch, fallback_limit=1e9, eps=1e-6)
    assert not fallback.any()
    total = group_sum((value[:, None] * batch.mask).sum(1), batch.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-9)
    whole = batch.replace(mask=torch.ones_like(batch.mask))
    plain = registry.method("grpo").bind().assign(whole)["outcome_advantage"]
    assert torch.allclose(token_average(whole, fallback_limit=1e9, eps=1e-6)[0], plain)
    flat = batch.replace(rewards=torch.full_like(batch.rewards, 0.7).float())
    assert not token_average(flat, fallback_limit=5.0, eps=1e-6)[0].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.5, 3.0))
def test_a_group_beyond_the_limit_falls_back_as_a_whole(seed: int, limit: float) -> None:
    batch = random_batch(seed, groups=(6, 5))
    free, _ = token_average(batch, fallback_limit=1e9, eps=1e-6)
    value, fallback = token_average(batch, fallback_limit=limit, eps=1e-6)
    over = group_sum(((free.abs() >= limit) & batch.mask.any(1)).double(), batch.groups) > 0
    assert torch.equal(fallback, over)
    back = fallback[batch.groups.index]
    rollouts = registry.method("grpo(std_ddof=1)").bind().assign(batch)["outcome_advantage"]
    assert torch.equal(value[back], rollouts[back])
    assert torch.equal(value[~back], free[~back])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.0, 1.0))
def test_entropies_lie_between_minus_one_and_one_and_only_their_order_has_a_sign(seed: int, pivot: float) -> None:
    batch = random_batch(seed)
    entropy = batch["entropy"]
    scale = entropy_scale(entropy, batch.mask, pivot=pivot)
    assert scale is not None
    h = scaled_entropy(entropy, scale)[batch.mask]
    assert bool((h.abs() <= 1 + 1e-12).all())
    assert bool((h[entropy[batch.mask].argsort()].diff() >= 0).all())
    assert torch.equal(h > 0, entropy[batch.mask].log() > scale.median)
    same = torch.full_like(entropy, 0.3)
    level = entropy_scale(same, batch.mask, pivot=pivot)
    assert level is not None
    assert not scaled_entropy(same, level).any()
    assert entropy_scale(entropy, torch.zeros_like(batch.mask)) is None


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 2.0), st.floats(0.0, 0.9))
def test_temperatures_stay_in_their_band(seed: int, base: float, tau: float) -> None:
    entropy = 5 * torch.rand(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = entropy_temperature(entropy, EntropyScale(0.3, 0.8, 0.7, -1.5), base=base, tau=tau)
    assert bool(((found >= base * (1 - tau) - 1e-12) & (found <= base * (1 + tau) + 1e-12)).all())
    assert bool((found[entropy.argsort()].diff() >= -1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_bounds_widen_on_the_side_of_the_token(seed: int) -> None:
    batch = random_batch(seed)
    made = registry.method("hapo").bind().assign(batch)
    ratio = (batch.logp - batch.old_logp).exp()
    how = {"pivot": 0.8, "low": 0.2, "high": 0.28, "alpha": 1.0, "beta": 1.0}
    h, low, high, shaped = by_nature(made, ratio, made.advantages, **how)
    certain, forking = batch.mask & (h < 0), batch.mask & (h > 0)
    assert bool((low[certain] > 0.2).all())
    assert bool((high[certain] == 0.28).all())
    assert bool((high[forking] > 0.28).all())
    assert bool((low[forking] == 0.2).all())
    # Certain tokens never gain and forking ones never lose; nobody changes side.
    size, before = shaped.abs(), made.advantages.abs()
    assert bool((size[certain] <= before[certain] + 1e-12).all())
    assert bool((size[forking] >= before[forking] - 1e-12).all())
    assert bool((shaped * made.advantages >= 0).all())
    still = by_nature(made, torch.ones_like(ratio), made.advantages, **how)[3]
    assert torch.allclose(still[forking], made.advantages[forking])
    assert torch.allclose(still[certain], (made.advantages * (1 + h))[certain])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_group_without_variance_has_no_gradient(seed: int) -> None:
    batch = random_batch(seed)
    flat = group_flat(batch.rewards, batch.groups)[batch.groups.index]
    assert not gradient(batch, "hapo")[flat].any()


def test_the_first_step_draws_at_one_temperature_and_later_ones_on_the_scale_of_the_last() -> None:
    policy = tiny_policy()
    requests = [request_of(prompt_of(policy, "1 + 1 ="), seed=i) for i in range(3)]
    drawn: list[Request] = []

    def generate(asked: Any) -> list[Any]:
        drawn[:] = asked
        return [rollout_of(request, [5]) for request in asked]

    lent: dict[str, Any] = {field.name: None for field in fields(Sampler)}
    tools = Sampler(**{**lent, "generate": generate})
    made = registry.method("hapo(temperature_tau=0.1)")
    states = made.init(size=3)
    made.bind(states).sampling(requests, tools)
    assert all(request.processor is None for request in drawn)
    batch = random_batch(2)
    states = made.bind(states).on_rollouts(batch, [])
    made.bind(states).sampling(requests, tools)
    scale = entropy_scale(batch["old_entropy"], batch.mask, pivot=0.8)
    assert scale is not None
    assert all(request.processor == EntropyTemperature(0.1, *map(float, scale)) for request in drawn)
    silent = batch.replace(mask=torch.zeros_like(batch.mask))
    after = made.bind(states).on_rollouts(silent, [])
    assert after["sampling/by_entropy"] == states["sampling/by_entropy"]
    assert registry.method("hapo(temperature_tau=0.0)").sampling is None
