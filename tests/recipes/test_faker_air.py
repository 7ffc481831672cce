"""FAKER-Air's identities (arXiv:2511.22169): classes, ranks, controllers, horizons; and that a run steers and resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.steering import steer_beta
from cohort.errors import UsageError
from cohort.signals.controller import Gains, controlled
from cohort.signals.forecast import alarms, class_of, class_reward, gaussian_terms, horizon, step_weights
from cohort.training.loop import one_step
from tests import micro
from tests.golden.guided import FakeSampler, requests_of
from tests.helpers import info_of
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
EDGES = ((15.0, 35.0, 75.0), (30.0, 80.0, 150.0))
SCORE: dict[str, Any] = {"edges": EDGES, "var_weights": (1.0, 0.3), "base": 0.75}


def fields(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A forecast [4, 3, 2, 8] and its target, some of whose pixels are not valid."""
    g = torch.Generator().manual_seed(seed)
    target = 160 * torch.rand(3, 2, 8, generator=g, dtype=torch.float64)
    target[torch.rand(3, 2, 8, generator=g) < 0.3] = 0.0
    return 160 * torch.rand(4, 3, 2, 8, generator=g, dtype=torch.float64), target


@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_a_perfect_forecast_is_worth_both_weights(seed: int, coarse: float, exact: float) -> None:
    prediction, target = fields(seed)
    how = {"coarse": coarse, "exact": exact, "false_alarm_penalty": 0.1, **SCORE}
    perfect = class_reward(target[None], target, **how)
    assert perfect.tolist() == pytest.approx([coarse + exact])
    assert bool((class_reward(prediction, target, **how) <= coarse + exact + 1e-9).all())
    recall, far = alarms(target[None], target, threshold=35.0, base=0.75)
    assert float(far) == 0
    assert float(recall) <= 1
    assert class_reward(prediction, 0 * target, **how).tolist() == [0.0] * 4


@given(SEEDS)
def test_pixels_that_are_not_valid_have_no_gradient(seed: int) -> None:
    prediction, target = fields(seed)
    mean = prediction.clone().requires_grad_()
    density, divergence = gaussian_terms(mean, prediction + 1, prediction + 2, target, sigma=(4.0, 6.0))
    (grad,) = torch.autograd.grad(density.sum() + divergence.sum(), mean)
    valid = (target > 0).expand_as(grad)
    assert not grad[~valid].any()
    assert bool((grad[valid] != 0).all())


def test_an_edge_belongs_to_the_lower_class() -> None:
    assert class_of(torch.tensor([15.0, 15.1, 35.0, 75.0, 76.0]), EDGES[0]).tolist() == [0, 1, 1, 2, 3]


@given(st.integers(1, 30), st.floats(0.1, 1))
def test_step_weights_sum_to_the_horizon(count: int, base: float) -> None:
    weights = step_weights(count, base)
    assert float(weights.sum()) == pytest.approx(count)
    assert bool((weights.diff() <= 1e-12).all())


@given(SEEDS)
def test_ranks_sum_to_0_and_do_not_know_the_scale(seed: int) -> None:
    batch = batch_for("faker-air", seed=seed, binary=False)
    method = registry.method("faker-air(adv_ema_coeff=0.0)")
    states, info = method.init(size=4), info_of(batch)
    found = [
        method.bind(states, info).prepare(batch.replace(rewards=scale * batch.rewards + 3)).batch["outcome_advantage"]
        for scale in (1.0, 50.0)
    ]
    assert torch.equal(*found)
    for group in range(batch.groups.count):
        own = found[0][batch.groups.index == group]
        assert float(own.sum()) == pytest.approx(0, abs=1e-9)
        assert sorted(own.tolist()) == pytest.approx([2 * (k / 3 - 0.5) for k in range(4)])


@given(st.floats(1e-4, 1), st.floats(0, 5), st.floats(-20, 20))
def test_a_controller_moves_with_its_error_within_its_bounds(weight: float, total: float, error: float) -> None:
    new, summed = controlled(weight, total, error, gains=Gains(), low=1e-4, high=1.0)
    assert 1e-4 <= new <= 1.0
    assert summed == pytest.approx(0.95 * total + error)
    if error > 0:
        assert new >= weight


def test_beta_rises_while_the_divergence_is_above_its_target() -> None:
    state: dict[str, Any] = {"beta": 5e-4, "I": 0.0, "kl": None}
    seen = []
    for _ in range(20):
        state = steer_beta(state, 40.0, target_kl=10.0, gains=Gains(), beta_min=1e-6, beta_max=1e-2)
        seen.append(state["beta"])
    assert seen == sorted(seen)
    assert seen[-1] == 1e-2


def test_rollouts_grow_by_the_epoch() -> None:
    method = registry.method("faker-air(unit=1, base=1, increment=1, every=2, t_max=2, epoch_steps=3)")
    for step in range(0, 15, 3):
        sampler = FakeSampler(lambda request: 1.0, step=step)
        method.bind().guidance(requests_of(1, 2), sampler)  # type: ignore[arg-type]
        want = horizon(step // 3, base=1, increment=1, every=2, most=2)
        assert {request.max_new_tokens for request in sampler.drawn} == {want}


def test_a_run_steers_its_weights(micro_root: Path) -> None:
    how = "faker-air(recall='exact', far='exact_2', far_target=0.0, target_kl=0.0, epoch_steps=2)"
    with micro.ready(micro_root, how, reward=["exact", "0*exact"], group_size=4, steps=4, lr=1e-3) as parts:
        run = run_of(*parts)
        held = []
        for _ in range(4):
            result = one_step(run)
            held.append({key.split("/")[1]: dict(state) for key, state in run.progress.states.items()})
    assert result.metrics["loss/controlled_kl"] >= 0
    far = [step["constrained"]["lambda_far"] for step in held]
    assert far == sorted(far)
    assert far[-1] > 0.2
    betas = [step["controlled_kl"]["beta"] for step in held]
    assert betas == sorted(betas)
    assert all(step["rank_and_average"]["var"] > 0 for step in held)


def test_a_run_without_the_rewards_that_it_reads_is_refused(micro_root: Path) -> None:
    with (
        pytest.raises(UsageError, match="reads the reward 'misses'"),
        micro.ready(micro_root, "faker-air(far='misses')"),
    ):
        pass
