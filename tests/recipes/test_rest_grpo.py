"""ReST-GRPO: tasks whose rewards vary, and beginnings of the policy's own best answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.sampling import stop_bonus, until_stop
from cohort.methods import Method, use
from cohort.recipes.rest_grpo import task_route
from cohort.rewards.judge import ask
from cohort.signals.beginnings import beginning_weights, beginnings
from cohort.training.loop import one_step
from cohort.types import Rollout, Segment
from cohort.types.access import Pool
from cohort.types.declare import hooks
from tests import micro
from tests.helpers import prompt_of, request_of, tiny_policy
from tests.stepping import run_of

KEY = "curriculum/varied_tasks"
# Rewards of the answers of each task; the best answer has three lines.
REWARDS = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.4, 0.0], "d": [0.0, 0.0], "e": [0.0, 1.0]}


@pytest.fixture(scope="module")
def pool() -> Pool:
    prompts = [prompt_of(tiny_policy(), name) for name in REWARDS]

    def draw(rows: torch.Tensor, count: int) -> list[Rollout]:
        return [
            Rollout(request_of(prompts[row]), (), text=f"{prompts[row].question}\n{k}\nz", reward=reward)
            for row in rows.tolist()
            for k, reward in enumerate(REWARDS[prompts[row].question])
        ]

    return Pool(prompts, draw, lambda contexts: [], ask)


def picks(expression: str, pool: Pool, steps: int, count: int = 2) -> list[list[tuple[int, str]]]:
    method, out = registry.method(expression), []
    states = method.init(size=len(pool.prompts))
    for step in range(steps):
        rng = torch.Generator().manual_seed(step)
        rows, states, notes = method.bind(states).pick(count=count, rng=rng, pool=pool)
        out.append([(row, note["start"]) for row, note in zip(rows.tolist(), notes, strict=True)])
    return out


def test_items_are_varied_tasks_and_beginnings_of_their_best_answers(pool: Pool) -> None:
    steps = picks("rest-grpo(sample_ratio=1.0)", pool, 4)
    assert all(len({row for row, _ in step}) == 2 for step in steps)
    seen = [item for step in steps for item in step]
    # Equal rewards are dropped; what is good enough is begun by a part of it.
    assert {row for row, _ in seen} == {0, 2, 4}
    assert {start for row, start in seen if row == 2} == {""}
    for row, best in ((0, 0), (4, 1)):
        starts = {start for own, start in seen if own == row}
        lines = f"{'abcde'[row]}\n{best}\nz\n"
        assert starts - {""} <= {lines[:2], lines[:4], lines}
    assert [start for _, start in seen if start]


def test_without_beginnings_it_only_filters_and_without_varied_tasks_all_are_kept(pool: Pool) -> None:
    seen = [item for step in picks("rest-grpo(sample_ratio=0.0)", pool, 6) for item in step]
    assert {*seen} == {(0, ""), (2, ""), (4, "")}
    seen = [item for step in picks("rest-grpo(std_min=9.0)", pool, 5) for item in step]
    assert {row for row, _ in seen} == {0, 1, 2, 3, 4}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.floats(0.05, 1.0))
def test_early_beginnings_are_likelier(count: int, alpha: float) -> None:
    weights = beginning_weights(count, alpha)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert bool((weights.diff() <= 0).all())
    assert torch.allclose(beginning_weights(count, 1.0), torch.full((count,), 1 / count, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet="ab \n", max_size=12))
def test_beginnings_grow_line_by_line(text: str) -> None:
    found = beginnings(text)
    assert found[-1] == text.rstrip() + "\n"
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(found))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2000) | st.none(), st.floats(0, 1e-2), st.floats(0, 1e-4))
def test_the_bonus_is_never_more_than_the_symbol_is_worth(trailing: int | None, symbol: float, penalty: float) -> None:
    assert stop_bonus(trailing, symbol_reward=symbol, trailing_penalty=penalty) <= symbol


def test_one_answer_or_equal_ones_drop_a_task() -> None:
    limits = {"std_min": 0.05, "reward_min": 0.9}
    assert task_route([1.0], **limits)[2] == task_route([0.5, 0.5], **limits)[2] == "drop"


def test_rollouts_go_on_behind_a_beginning_that_is_graded_and_not_trained(micro_root: Path) -> None:
    def begun(state: Any, *, count: int) -> Any:
        return torch.tensor([0, 1]), state, [{"start": "0\n"}, {"start": ""}]

    with micro.ready(micro_root, "rest-grpo", prompts_per_step=2, group_size=3) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        own = Method(curriculum=use(hooks(init=lambda *, size: {})(begun)))
        run.method = own | registry.method("rest-grpo:-curriculum")
        run.source.method = run.method  # type: ignore[attr-defined]
        progress.states = run.method.init(size=8)
        result = one_step(run)
    behind, plain = ([r for r in result.rollouts if r.prompt.id == setup.prompts[row].id] for row in (0, 1))
    assert [len(behind), len(plain)] == [3, 3]
    assert all(r.text.startswith("0\n") for r in behind)
    assert all(r.mask[:2] == [0, 0] and r.mask[2] == 1 for r in behind)
    assert all(r.mask[0] == 1 for r in plain)


def test_texts_end_before_a_stop_string_behind_the_beginning(micro_root: Path) -> None:
    policy = tiny_policy()

    class Said:
        stop_ids = frozenset({1})

        def __init__(self, text: str, tokens: tuple[int, ...], start: str = "") -> None:
            request = replace(request_of(prompt_of(policy, "a")), meta={"start": start})
            self.rollout = Rollout(request, (Segment(tokens),), text=text)

        def generate(self, requests: Any) -> list[Rollout]:
            return [self.rollout]

    def bonus(said: Said) -> tuple[str, float]:
        (rollout,) = until_stop([], said, stop=("##", "%"))  # type: ignore[arg-type]
        return rollout.text, rollout.fields["stop_bonus"]  # type: ignore[return-value]

    assert bonus(Said("x##yz", (5, 1))) == ("x", pytest.approx(1e-3 - 2e-6))
    assert bonus(Said("x%y##z", (5, 1))) == ("x", pytest.approx(1e-3 - 4e-6))
    # What stands in the beginning ends nothing.
    assert bonus(Said("##\nxy", (5, 1), "##\n")) == ("##\nxy", 0.0)
    # The engine stopped at a stop string of the run.
    assert bonus(Said("xy", (5, 6))) == ("xy", 1e-3)
