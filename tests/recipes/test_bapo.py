"""BAPO: clip bounds searched for every minibatch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes import ratio
from cohort.methods import MethodError
from cohort.recipes.bapo import Balance, balance, bounds
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
LOW, HIGH = (0.6, 0.9, 0.02), (1.2, 3.0, 0.05)


def search(batch: Batch, **hyper: object) -> Balance:
    ready = registry.method("grpo").bind().assign(batch)
    given = {"search": "paper", "rho0": 0.4, "low": LOW, "high": HIGH, **hyper}
    return balance(ready, ratio.token(ready), ready.advantages, **given)  # type: ignore[arg-type]


def measured(batch: Batch, low: float, high: float, mode: str) -> float:
    """The measure at given bounds, token by token."""
    advantages, rho = registry.method("grpo").bind().assign(batch).advantages, ratio.token(batch)
    up = down = 0.0
    for i, t in batch.mask.nonzero().tolist():
        a, r = float(advantages[i, t]), float(rho[i, t])
        weight = float(batch.old_logp[i, t].exp()) if mode == "paper" else 1.0
        if a > 0:
            up += weight * abs(min(r, high) * a)
        if a < 0:
            down += weight * abs(max(r, low) * a)
    if mode == "paper":
        return up / (up + down) if up + down else 1.0
    return up / (down + 1e-8) if bool((advantages < 0).any()) else float("inf")


def by_hand(batch: Batch, mode: str, rho0: float, low: tuple, high: tuple) -> tuple[float, float, int]:
    """The search as the paper words it, a step at a time."""
    at = {"low": low[0], "high": high[0]}
    spans, steps = {"low": low, "high": high}, 0
    order = ("high", "low") if mode == "paper" else ("low", "high")
    while measured(batch, at["low"], at["high"], mode) < rho0:
        free = [name for name in order if at[name] < spans[name][1] - 1e-12]
        if not free:
            break
        at[free[0]] = min(at[free[0]] + spans[free[0]][2], spans[free[0]][1])
        steps += 1
    return at["low"], at["high"], steps


def gradient(method: str, batch: Batch) -> Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["paper", "code"]), st.floats(0.01, 0.99))
def test_the_search_is_the_one_of_the_paper(seed: int, mode: str, share: float) -> None:
    batch = random_batch(seed, drift=1.0)
    low, high = (0.5, 0.95, 0.07), (1.1, 2.5, 0.3)
    rho0 = share if mode == "paper" else share / (1 - share)
    found = search(batch, search=mode, rho0=rho0, low=low, high=high)
    assert (found.low, found.high, found.steps) == pytest.approx(by_hand(batch, mode, rho0, low, high))
    assert found.measure == pytest.approx(measured(batch, found.low, found.high, mode))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(1, 3), st.floats(1, 3))
def test_the_share_rises_with_the_upper_and_falls_with_the_lower_bound(
    seed: int, low: float, other_low: float, high: float, other_high: float
) -> None:
    batch = random_batch(seed, drift=1.0)

    def share(low: float, high: float) -> float:
        return search(batch, rho0=0.0, low=(low, low, 1), high=(high, high, 1)).measure

    assert share(low, max(high, other_high)) >= share(low, min(high, other_high)) - 1e-12
    assert share(max(low, other_low), high) <= share(min(low, other_low), high) + 1e-12


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_room_it_is_grpo(seed: int) -> None:
    batch = random_batch(seed, drift=0.6)
    fixed = "bapo(low_start=0.8, low_max=0.8, high_start=1.2, high_max=1.2)"
    assert torch.allclose(gradient(fixed, batch), gradient("grpo(kl_beta=0.0)", batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["paper", "code"]))
def test_a_target_of_zero_leaves_the_bounds_where_they_start(seed: int, mode: str) -> None:
    found = search(random_batch(seed, drift=1.0), search=mode, rho0=0.0)
    assert (found.low, found.high, found.steps) == (LOW[0], HIGH[0], 0)


def test_steps_counts_and_ends() -> None:
    assert len(bounds(*HIGH)) - 1 == 36
    assert len(bounds(*LOW)) - 1 == 15
    assert bounds(0.8, 0.8, 0.1) == [0.8]
    batch = random_batch(1, drift=1.0)
    assert search(batch, rho0=0.999999).steps == 51
    # Released order: a target that cannot be met ends at the highest lower bound before the upper one moves.
    first = search(batch, search="code", rho0=1e9)
    assert (first.low, first.high) == pytest.approx((0.9, 3.0))


@pytest.mark.parametrize("mode", ["paper", "code"])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_without_a_signal_there_is_no_search_and_no_gradient(mode: str, reward: float) -> None:
    batch = random_batch(1)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, reward))
    found = search(batch, search=mode, rho0=0.99)
    assert found.steps == 0
    assert found.measure == (1.0 if mode == "paper" else float("inf"))
    assert not gradient(f"bapo(search='{mode}', rho0=0.99)", batch).any()
    nothing = batch.replace(mask=torch.zeros_like(batch.mask))
    assert search(nothing, search=mode, rho0=0.99).steps == 0


def test_a_raised_lower_bound_drops_negative_tokens_and_the_dual_clip_far_ones() -> None:
    batch = random_batch(5, drift=1.0)
    advantages, rho = registry.method("grpo").bind().assign(batch).advantages, ratio.token(batch)
    down = batch.mask & (advantages < 0)
    grad = gradient("bapo(rho0=0.999999)", batch)
    assert torch.equal(grad[down] == 0, (rho < 0.9)[down])
    capped = gradient("bapo(rho0=0.999999, dual_clip=1.5)", batch)
    assert torch.equal(capped[down] == 0, ((rho < 0.9) | (rho > 1.5))[down])


def test_bounds_that_end_before_they_begin_are_refused() -> None:
    with pytest.raises(MethodError, match="low_max"):
        registry.method("bapo(low_start=0.9, low_max=0.8)")


def test_a_minibatch_is_searched_whole() -> None:
    """Cut into micro-batches, it would have bounds of its own in each."""
    assert registry.method("bapo").couples
    batch = registry.method("grpo").bind().assign(random_batch(6, groups=(4, 4), drift=1.0))
    halves = [search(batch.select(batch.groups.index == g), rho0=0.5) for g in (0, 1)]
    assert len({found.steps for found in (*halves, search(batch, rho0=0.5))}) == 3
