"""V0: rollouts by predicted success."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.budget import best_plan
from cohort.errors import UsageError
from cohort.recipes.v0 import route, utility
from cohort.rewards.judge import load_judge
from cohort.training.loop import one_step
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for

KEY = "budget/by_predicted_success"
RATES = st.lists(st.floats(0, 1), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1))
def test_utility(p: float) -> None:
    rate = torch.tensor(p, dtype=torch.float64)
    budgets = torch.arange(200, dtype=torch.float64)
    worth = utility(budgets, rate)
    assert bool((worth >= 0).all())
    assert float(worth[:2].abs().max()) == 0
    assert float(worth[2]) == pytest.approx(2 * p * (1 - p))
    if p > 0.2:
        assert float(worth[199] / 199) == pytest.approx(1 - p, abs=1e-6)
    assert not utility(budgets, torch.tensor([[0.0], [1.0]], dtype=torch.float64)).any()


@settings(max_examples=20, deadline=None)
@given(RATES, st.integers(2, 6))
def test_the_plan_is_no_worse_than_the_equal_one(rates: list[float], each: int) -> None:
    table = utility(torch.arange(13).double(), torch.tensor(rates, dtype=torch.float64)[:, None])
    plan = best_plan(table, each * len(rates), low=1)
    own = sum(float(row[b]) for row, b in zip(table, plan, strict=True))
    assert own >= float(table[:, each].sum()) - 1e-9


def test_routing_by_success_alone_or_by_cost_alone() -> None:
    success, costs = torch.tensor([[0.2, 0.9, 0.5]]), torch.tensor([1.0, 3.0, 2.0])
    assert route(success, costs, beta=1.0)[1].tolist() == [1]
    assert route(success, costs, beta=0.0)[1].tolist() == [0]
    assert route(success, torch.ones(3), beta=0.0)[0].tolist() == [[1.0, 1.0, 1.0]]


def test_the_history_keeps_the_newest_and_the_model_learns_from_both_kinds() -> None:
    method = registry.method("v0(context=4)")
    states = method.init(size=12)
    for seed in range(3):
        states = method.bind(states).on_rollouts(batch_for("v0", seed=seed), [])
    state = states[KEY]
    assert len(state["rows"]) == len(state["success"]) == len(state["features"]) == 4
    assert bool(((state["success"] >= 0) & (state["success"] <= 1)).all())
    assert state["model"] == {} or state["model"]["updates"] % 8 == 0


def test_budgets_follow_what_is_predicted(micro_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "seen = []\n\n\ndef predictor(prompts, history):\n    seen.append((prompts, history))\n"
        "    return [0.1 if p[0] in 'ab' else 1.0 for p in prompts]\n"
    )
    with micro.ready(micro_root, f"v0(predictor='{file}:predictor')", group_size=8) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        first, second = (one_step(run) for _ in range(2))
        prompts, history = load_judge(f"{file}:predictor").__globals__["seen"][-1]
    sizes = [{p.question: 0 for p in setup.prompts} for _ in range(2)]
    for result, counts in zip((first, second), sizes, strict=True):
        for rollout in result.rollouts:
            counts[rollout.prompt.question] += 1
    assert {*sizes[0].values()} == {8}
    # All but two are said to be solved for certain.
    assert sum(sizes[1].values()) == 64
    assert min(sizes[1]["a"], sizes[1]["b"]) >= 20
    assert min(sizes[1].values()) == 2
    assert sorted(prompts) == sorted(asked for asked, _ in history[0])


def test_the_policys_own_features_are_remembered(micro_root: Path) -> None:
    with micro.ready(micro_root, "v0", group_size=8) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        results = [one_step(run) for _ in range(3)]
        state = run.progress.states[KEY]
    assert all(len(result.rollouts) == 64 for result in results)
    assert state["features"].shape == (24, 32)
    assert state["model"]["updates"] == 16


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(UsageError, match="above max_budget"):
        registry.method("v0(min_budget=9, max_budget=4)")
