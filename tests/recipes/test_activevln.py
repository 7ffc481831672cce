"""ActiveVLN: a reward at a stop, and groups that failed drawn again."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cohort
from cohort import registry
from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.environments import navigation
from cohort.environments.navigation import GridWorld
from cohort.methods import MethodError
from cohort.recipes.activevln import goal_reward
from cohort.rollouts.collect import Collector
from cohort.types import Rollout, StepInfo
from tests import micro
from tests.environments.worlds import Worlds
from tests.helpers import prompt_of, tiny_policy
from tests.rollouts.test_runner import POLICY


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 10), st.booleans(), st.floats(0.1, 5))
def test_the_reward_is_largest_at_the_goal_and_0_at_the_radius(distance: float, stopped: bool, radius: float) -> None:
    given = torch.tensor([distance, 0.0, radius, torch.inf], dtype=torch.float64)
    flags = torch.tensor([float(stopped), 1.0, 1.0, 1.0])
    reward = goal_reward(flags, given, base=15.0, radius=radius)
    assert reward[1] == 15
    assert (reward[2], reward[3]) == (0, 0)
    assert 0 <= reward[0] <= 15
    assert stopped or reward[0] == 0


class Grids(Worlds):
    components = GridWorld.components


def walked(method: str) -> tuple[list[Rollout], Collector]:
    """What a random policy that likes letters of moves does."""
    letters = dict.fromkeys(POLICY.renderer.encode("flrs"), 9.0)
    policy = tiny_policy()
    sampling = Sampling(temperature=0.9, logit_bias={1: 8.0, **letters})
    worlds = Grids(lambda k: GridWorld(size=2, landmarks=1, turns=2))
    draws = Collector(policy, NativeEngine(policy), sampling, worlds.grader, 100, environments=worlds)
    prompts = [prompt_of(policy, f"p{k}", prompt=f"p{k}", world=k, expert=4) for k in range(6)]
    bound = registry.method(method).bind({}, StepInfo(max_new_tokens=100))
    return draws.collect(bound, prompts, [2] * 6, seed=5), draws


def failed(rollouts: list[Rollout]) -> set[str]:
    return {r.prompt.id for r in rollouts} - {r.prompt.id for r in rollouts if r.accuracy >= 1}


def test_only_groups_without_a_success_are_drawn_again() -> None:
    plain, _ = walked("activevln(attempts=0)")
    rollouts, draws = walked("activevln")
    assert 0 < len(failed(plain)) < 6
    assert len(rollouts) == 12
    assert len(failed(rollouts)) < len(failed(plain))
    for a, b in zip(plain, [r for r in rollouts if r.prompt.id not in failed(plain)], strict=False):
        if a.prompt.id not in failed(plain):
            assert any(a.tokens == other.tokens for other in rollouts if other.prompt.id == a.prompt.id)
            assert b.scored
    # What was drawn in vain was drawn.
    assert draws.take_tokens() > sum(sum(r.mask) for r in rollouts)


def test_a_warm_up_begins_on_the_experts_path() -> None:
    rollouts, _ = walked("activevln(attempts=0, warmup_steps=10, expert_steps='expert')")
    assert all(r.prompt.row["replayed"] == 2 for r in rollouts)
    assert all((r.prompt.row["step_budget"], r.prompt.row["turn_budget"]) == (4, 39) for r in rollouts)


def test_a_run_walks_and_is_rewarded_by_distance(micro_root: Path, tmp_path: Path) -> None:
    method = "activevln(stopped='stopped', distance='distance', radius=1.0, attempts=1)"
    how = {
        "environment": f"{navigation.__file__}:GridWorld?size=2&landmarks=1&turns=2",
        "logit_bias": {1: 31.0, "s": 30.0, "f": 30.0},
        "min_new_tokens": 1,
    }
    given = {
        "prompts_per_step": 2,
        "group_size": 4,
        "max_new_tokens": 60,
        "eval_size": 1,
        "turn_tokens": 3,
        "environment_processes": 1,
    }
    folder = str(micro.folder(micro_root))
    cohort.train(method, model=folder, out=str(tmp_path / "run"), steps=1, quiet=True, **how, **given)
    (path,) = (tmp_path / "run" / "rollouts").glob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert any(row["reward/stopped"] for row in rows)
    for row in rows:
        assert row["question"].startswith("world ")
        if row["reward"] is not None and row["shaped_reward"] is not None and row["reward/stopped"] is not None:
            near = 15 * (1 - min(row["reward/distance"], 1.0)) if row["reward/stopped"] and row["reward"] else 0.0
            assert row["shaped_reward"] == pytest.approx(near, abs=1e-5)


@pytest.mark.parametrize("wrong", ["activevln(stopped='stopped')", "activevln(warmup_steps=5)"])
def test_what_belongs_together_is_named_together(wrong: str) -> None:
    with pytest.raises(MethodError, match=r"name both components|needs expert_steps"):
        registry.method(wrong)
