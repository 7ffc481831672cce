"""ARSPO: rewards mapped by task, and weights that follow which tasks stand still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.surrogate import clipped, ppo_clip, soft_gate
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.arspo import RULES, control
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
KEY = "credit/task_weight"
RATES = {"eta_up": 0.01, "eta_down": 0.01, "theta_high": 0.9, "boost": 1.2, "decay": 0.9, "l_max": 4.0}


def run(name: str, batch: Batch, *, weights: list[float] | None = None) -> tuple[Tensor, Tensor]:
    """Loss and gradient, the tasks weighted."""
    method = registry.method(name)
    given_batch, leaves = with_leaves(method, batch)
    states: dict[str, Any] = method.init(size=3)
    if weights:
        states[KEY]["weights"] = torch.tensor(weights, dtype=torch.float64)
    made = method.bind(states).prepare(given_batch).batch
    loss = method.bind(states).loss(made).total
    return loss.detach(), gradients(loss, leaves)["logp"]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_identity_maps_and_equal_weights_it_is_its_base(seed: int) -> None:
    batch = batch_for("arspo", seed=seed)
    same = ("identity",) * 4
    loss, grad = run(f"arspo(maps={same}, gate='clip')", batch)
    want, wanted = run("grpo(kl_beta=0.0)", batch)
    assert torch.isclose(loss, want)
    assert torch.allclose(grad, wanted)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["soft", "clip"]), st.lists(st.floats(1, 4), min_size=4, max_size=4))
def test_weights_multiply_the_gradients_of_their_task(seed: int, gate: str, weights: list[float]) -> None:
    batch = batch_for("arspo", seed=seed)
    _, plain = run(f"arspo(gate='{gate}')", batch)
    _, weighted = run(f"arspo(gate='{gate}')", batch, weights=weights)
    factor = torch.tensor(weights, dtype=torch.float64)[batch["task"]][:, None]
    assert torch.allclose(weighted, factor * plain)
    advantages = torch.randn(batch.mask.shape, dtype=torch.float64)
    ratio = (batch.logp - batch.old_logp).exp()
    assert torch.allclose(clipped(ratio, factor * advantages, 0.2, 0.2), factor * clipped(ratio, advantages, 0.2, 0.2))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_soft_gate_and_clip_have_the_same_gradient(seed: int) -> None:
    batch = batch_for("arspo", seed=seed)
    advantages = torch.randn(batch.mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ratio = torch.ones_like(advantages).requires_grad_()
    slopes = [torch.autograd.grad(f(batch, ratio, advantages).sum(), ratio)[0] for f in (soft_gate, ppo_clip)]
    assert torch.allclose(*slopes)
    # Away from 1 the push fades, sooner where the advantage is negative.
    far = torch.full_like(advantages, 3.0).requires_grad_()
    faded = torch.autograd.grad(soft_gate(batch, far, advantages).sum(), far)[0] / slopes[0]
    assert (faded < 0.5).all()
    if (advantages > 0).any() and (advantages < 0).any():
        assert faded[advantages < 0].max() < faded[advantages > 0].min()


UNIT = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=8), UNIT)
def test_weights_stay_between_1_and_their_limit(windows: list[list[float]], baseline: list[float]) -> None:
    begun = past = torch.tensor(baseline, dtype=torch.float64)
    weights = torch.ones(3, dtype=torch.float64)
    for window in windows:
        mean = torch.tensor(window, dtype=torch.float64)
        before = weights
        weights, _, rules = control(weights, begun, past, mean, **RATES)
        assert weights.min() == 1
        assert weights.max() <= 4
        scale = weights / before
        moved = {"momentum": 1.0, "none": 1.0, "rescue": 1.2, "laggard": 1.2, "decay": 0.9}
        free = [k for k in range(3) if 1 / 0.9 < before[k] < 4 / 1.2]
        for a in free:
            for b in free:
                assert float(scale[a] / scale[b]) == pytest.approx(moved[rules[a]] / moved[rules[b]])
        assert set(rules) <= set(RULES)
        past = mean
    alone, _, _ = control(torch.ones(1), torch.tensor([0.5]), torch.tensor([0.9]), torch.tensor([0.1]), **RATES)
    assert alone.tolist() == [1.0]


def watch(states: dict[str, Any], scores: dict[int, float], method: Any) -> dict[str, Any]:
    """States after a step in which the tasks had these scores."""
    task = torch.tensor([k for k in scores for _ in range(2)], dtype=torch.int64)
    rewards = torch.tensor([scores[int(k)] for k in task], dtype=torch.float64)
    batch = Batch.of(torch.ones(len(task), 1), group=task, rewards=rewards).with_rollouts(task=task)
    return method.bind(states).on_rollouts(batch, [])


def test_windows_set_the_baseline_then_move_the_weights() -> None:
    method = registry.method("arspo(maps=('identity', 'exp'), warmup_steps=2, window_steps=3)")
    states = method.init(size=1)
    for step in range(2):
        assert not states[KEY]["warm"], step
        states = watch(states, {0: 0.5, 1: 0.2}, method)
    assert states[KEY]["baseline"].tolist() == pytest.approx([0.5, 0.2])
    # The easy task climbs, the hard one stands still: it is lifted, window after window.
    seen = []
    for step in range(6):
        states = watch(states, {0: 0.5 + 0.05 * step, 1: 0.2}, method)
        seen.append(float(states[KEY]["weights"][1]))
    assert seen == pytest.approx([1, 1, 1.2, 1.2, 1.2, 1.44])
    assert states[KEY]["weights"][0] == 1
    assert states[KEY]["baseline"].tolist() == pytest.approx([0.5, 0.2])


def test_a_task_that_was_not_seen_keeps_its_mean_and_its_weight() -> None:
    method = registry.method("arspo(maps=('identity', 'exp', 'exp'), warmup_steps=1, window_steps=1)")
    states = watch(method.init(size=1), {0: 0.5, 1: 0.5}, method)
    assert states[KEY]["baseline"].isnan().tolist() == [False, False, True]
    states = watch(states, {0: 0.6, 2: 0.3}, method)
    assert states[KEY]["past"].tolist() == pytest.approx([0.6, 0.5, 0.3])
    assert states[KEY]["baseline"].tolist() == pytest.approx([0.5, 0.5, 0.3])
    assert states[KEY]["weights"][1] == states[KEY]["weights"].min()


def test_tasks_come_from_the_data(micro_root: Path) -> None:
    named = [{**row, "task": "even" if row["task"] == 0 else "odd"} for row in micro.ROWS]
    method = "arspo(tasks=('even', 'odd'), maps=('identity', 'exp'), warmup_steps=1, window_steps=1)"
    with micro.ready(micro_root, method, data=named, steps=2, group_size=4) as (setup, optimizer, progress):
        result = one_step(run_of(setup, optimizer, progress))
        assert result.batch is not None
        odd = torch.tensor([result.rollouts[i].prompt.row["task"] == "odd" for i in result.trained])
        assert torch.equal(result.batch["task"], odd.long())
        raw = torch.tensor([result.rollouts[i].reward for i in result.trained])
        assert torch.allclose(result.batch.rewards, torch.where(odd, (3 * raw).exp(), raw))
        one_step(run_of(setup, optimizer, progress))
        assert float(progress.states[KEY]["weights"].min()) == 1
    with (
        pytest.raises(UsageError, match="tasks="),
        micro.ready(micro_root, "arspo", data=named, group_size=2) as (setup, optimizer, progress),
    ):
        one_step(run_of(setup, optimizer, progress))
    with pytest.raises(MethodError, match="maps"):
        registry.method("arspo(tasks=('a', 'b'))")
