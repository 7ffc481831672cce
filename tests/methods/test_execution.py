"""A method at work: what its functions are given, what they report, and which groups they see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cohort.axes import surrogate
from cohort.methods import Method, MethodError, use
from cohort.training import loop
from cohort.types import Batch, StepInfo
from cohort.types.declare import State, declare, hooks
from tests import micro
from tests.helpers import random_batch
from tests.stepping import run_of


def test_what_names_the_step_is_given_it_and_it_is_no_hyperparameter() -> None:
    seen: list[tuple[str, int]] = []

    def look(batch: Batch, access: Any, *, info: StepInfo) -> Batch:
        seen.append(("hook", info.step))
        return batch

    @hooks(on_scored=look)
    def later(batch: Batch, *, scale: float = 1.0, info: StepInfo) -> Tensor:
        seen.append(("function", info.step))
        return batch.rewards * scale

    stage = use(later, scale=2.0)
    assert stage.all_hyper == {"scale": 2.0}
    bound = Method(shaping=(stage,)).bind(info=StepInfo(step=7))
    batch = bound.on_scored(random_batch(0), None)  # type: ignore[arg-type]
    assert torch.equal(bound.shape(batch).rewards, 2 * batch.rewards)
    assert seen == [("hook", 7), ("function", 7)]
    for name in ("info", "state"):
        with pytest.raises(MethodError, match=f"no hyperparameter {name}"):
            use(later, **{name: None})


def test_numbers_for_the_log_are_returned_beside_results_and_leave_the_batch_alone() -> None:
    def shaping(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return batch.rewards + 1, {"mine/shaped": 1.0}

    def advantage(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return batch.rewards, {"mine/advantage": 2.0}

    def noted(batch: Batch) -> tuple[Batch, dict[str, float]]:
        return batch, {"mine/hook": 4.0}

    @hooks(on_advantages=noted)
    def credit(batch: Batch, advantages: Tensor) -> tuple[Tensor, dict[str, float]]:
        return 2 * advantages, {"mine/credit": 3.0}

    batch = random_batch(1)
    made = Method(shaping=(use(shaping),), advantage=use(advantage), credit=(use(credit),)).bind().prepare(batch)
    assert made.metrics == {"mine/shaped": 1.0, "mine/advantage": 2.0, "mine/credit": 3.0, "mine/hook": 4.0}
    assert torch.equal(made.batch["outcome_advantage"], batch.rewards + 1)
    rewards = (batch.rewards + 1)[:, None]
    assert torch.equal(made.batch.advantages, torch.where(batch.mask, 2 * rewards, 0.0))


def test_a_group_that_filters_leave_too_small_goes_and_one_that_came_so_stays() -> None:
    """Who hands a group of one to a method wants it; what a filter tears apart cannot be compared any more."""

    def second_of_group_0(batch: Batch) -> Tensor:
        rows = (batch.group == 0).nonzero()[:, 0]
        return ~torch.isin(torch.arange(batch.size), rows[1:2])

    batch = random_batch(0, groups=(2, 1, 3), interleave=False)
    whole, torn = (Method(filter=filters).bind().prepare(batch) for filters in ((), (use(second_of_group_0),)))
    assert whole.trained.tolist() == [0, 1, 2, 3, 4, 5]
    assert torn.filtered.tolist() == [0, 2, 3, 4, 5]
    assert torn.before.tolist() == torn.trained.tolist() == [2, 3, 4, 5]


def test_states_are_made_anew_from_the_groups_that_are_large_enough() -> None:
    def count(batch: Batch, state: State, rollouts: list[Any]) -> State:
        return {"rows": [*state["rows"], *rollouts], "size": batch.size}

    @hooks(init=lambda: {"rows": [], "size": 0}, on_rollouts=count)
    @declare(group_size=2)
    def counted(batch: Batch, state: State) -> Tensor:
        return batch.rewards

    method = Method(shaping=(use(counted),))
    states = {"shaping/counted": method.init(size=3)["shaping/counted"]}
    batch = random_batch(0, groups=(2, 1), interleave=False)
    bound = method.bind(states)
    new: Any = bound.on_rollouts(batch, ["a", "b", "c"])  # type: ignore[list-item]
    assert new == {"shaping/counted": {"rows": ["a", "b"], "size": 2}}
    assert states == bound.states == {"shaping/counted": {"rows": [], "size": 0}}
    assert bound.with_states(new).states == new
    # Nothing is large enough: the state stays as it is.
    assert bound.on_rollouts(batch.select(torch.tensor([2])), ["c"]) == states  # type: ignore[list-item]


def test_from_the_loop_to_a_surrogate_are_four_calls(micro_root: Path) -> None:
    traces: list[list[str]] = []

    def watched(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
        trace, frame = [], sys._getframe()
        while frame.f_code is not loop.one_step.__code__:
            trace.append(frame.f_code.co_name)
            assert frame.f_back is not None
            frame = frame.f_back
        traces.append(trace[::-1])
        return surrogate.ppo_clip(batch, ratio, advantages)

    method = Method(surrogate=use(watched), name="watched")
    with micro.ready(micro_root, "grpo(kl_beta=0.0)", prompts_per_step=2, group_size=4) as (setup, optimizer, progress):
        setup.method = method
        loop.one_step(run_of(setup, optimizer, progress))
    assert traces
    assert all(trace == ["update", "gradient", "loss", "watched"] for trace in traces)
