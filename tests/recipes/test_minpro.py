"""MinPRO: the weight of a token counts the smallest ratio of its prefix."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes import ratio
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


def gradient(method: str, batch: Batch) -> torch.Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0, 2))
def test_gradient_is_the_weight_times_the_advantage(seed: int, low: float, high: float) -> None:
    batch = random_batch(seed, drift=0.8)
    made = registry.method("minpro", clip_low=low, clip_high=high)
    rho = ratio.token(batch)
    for i in range(batch.size):
        seen: list[float] = []
        for t in batch.mask[i].nonzero()[:, 0].tolist():
            raw = float(rho[i, t]) * min(seen, default=1.0)
            seen.append(float(rho[i, t]))
            assert torch.isclose(made.stage("ratio")(batch)[i, t], torch.tensor(raw, dtype=torch.float64))
    raw = made.stage("ratio")(batch)
    want = -raw.clamp(1 - low, 1 + high) * made.bind().assign(batch).advantages / batch.mask.sum()
    assert torch.allclose(
        gradient(f"minpro(clip_low={low}, clip_high={high})", batch), torch.where(batch.mask, want, 0.0)
    )


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_it_is_reinforce_with_a_token_mean(seed: int) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["old_logp"])
    advantages = registry.method("grpo").bind().assign(batch).advantages
    want = torch.where(batch.mask, -advantages / batch.mask.sum(), 0.0)
    assert torch.allclose(gradient("minpro", batch), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_where_no_earlier_ratio_differs_from_one_it_is_cispo(seed: int) -> None:
    batch = random_batch(seed, drift=0.8)
    # Only the last token of a rollout moves, so every prefix is at 1.
    last = batch.mask & (batch.mask.flip(1).cumsum(1).flip(1) == 1)
    batch = batch.replace(logp=torch.where(last, batch.logp, batch._tokens["old_logp"]))
    same = gradient("cispo(is_clip_low=0.2, is_clip_high=0.28)", batch)
    assert torch.allclose(gradient("minpro", batch), same)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_prefix_raises_or_lowers_the_weight_as_its_smallest_ratio_says(seed: int) -> None:
    batch = random_batch(seed, drift=0.8)
    raw, rho = registry.method("minpro").stage("ratio")(batch), ratio.token(batch)
    low = torch.full_like(rho, torch.inf)
    low[:, 1:] = torch.where(batch.mask, rho, torch.inf).cummin(1).values[:, :-1]
    started = batch.mask & low.isfinite()
    assert bool((raw >= rho)[started & (low >= 1)].all())
    assert bool((raw < rho)[started & (low < 1)].all())


def test_no_token_loses_its_gradient() -> None:
    batch = random_batch(3, drift=2.0)
    pushed = gradient("minpro", batch) != 0
    acting = batch.mask & (registry.method("minpro").bind().assign(batch).advantages != 0)
    assert torch.equal(pushed, acting)
    assert not torch.equal(gradient("grpo(kl_beta=0.0)", batch) != 0, acting)


def test_tokens_of_a_tool_neither_enter_nor_reset_the_minimum() -> None:
    batch = random_batch(1, groups=(2,), width=4, empty=False)
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    ratios = torch.tensor([[0.5, 1e-9, 2.0, 2.0], [3.0, 2.0, 1.0, 1.0]], dtype=torch.float64)
    batch = batch.replace(mask=mask, old_logp=torch.zeros_like(ratios), logp=ratios.log())
    raw = registry.method("minpro").stage("ratio")(batch)
    assert torch.allclose(raw[0, mask[0]], torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64))
    assert torch.allclose(raw[1], torch.tensor([3.0, 6.0, 2.0, 1.0], dtype=torch.float64))
