"""Rollouts without a reward, groups too small to compare, empty completions: for every method, through the real step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort import registry
from cohort.training.build import Setup
from cohort.training.loop import one_step
from cohort.training.outcome import StepResult
from cohort.training.progress import Progress
from cohort.types import Rollout
from tests import micro
from tests.stepping import run_of

EVERY = [name for name in registry.names() if not registry.method(name).requires]
Change = Callable[[list[Rollout]], list[Rollout]]


def abstained(rollout: Rollout) -> Rollout:
    """As scoring leaves it where no reward applies."""
    return rollout.replace(components=dict.fromkeys(rollout.components), reward=math.nan, accuracy=math.nan)


def rewarded(rollout: Rollout, value: float) -> Rollout:
    """With another verdict."""
    first, *rest = rollout.components
    return rollout.replace(
        components={first: value, **{name: rollout.components[name] for name in rest}}, reward=value, accuracy=value
    )


def empty(rollout: Rollout) -> Rollout:
    """Without a token."""
    fields = {name: [] if isinstance(value, list) else value for name, value in rollout.fields.items()}
    return rollout.replace(segments=(), text="", status="truncated", fields=fields)


def by_group(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.prompt.id, []).append(rollout)
    return list(groups.values())


def changed(setup: Setup, change: Change) -> None:
    """Have a step's rollouts changed after they were drawn and scored."""
    collect = type(setup.collector).collect

    def after(*args: Any, **kwargs: Any) -> list[Rollout]:
        return change(collect(setup.collector, *args, **kwargs))

    setup.collector.collect = after  # type: ignore[method-assign]


def some(rollouts: Sequence[Rollout]) -> list[bool]:
    """Which rollouts abstain: of the groups by turns none, some, all, and all but one."""
    left_out: dict[int, bool] = {}
    for g, group in enumerate(by_group(rollouts)):
        for i, rollout in enumerate(group):
            left_out[id(rollout)] = (False, i % 3 == 1, True, i != 1)[g % 4]
    return [left_out[id(rollout)] for rollout in rollouts]


def step_with(root: Path, name: str, change: Change) -> tuple[StepResult, dict[str, torch.Tensor], Progress]:
    """A step on changed rollouts: what it leaves, the gradients of all parameters, and the states."""
    with micro.method_ready(root, name, prompts_per_step=5, group_size=4) as (setup, optimizer, progress):
        changed(setup, change)
        grads: dict[str, torch.Tensor] = {}

        def kept() -> None:
            for i, parameter in enumerate(optimizer.params):
                if parameter.grad is not None:
                    grads[f"{len(grads)} {i}"] = parameter.grad.clone()

        plain = optimizer.zero_grad
        optimizer.zero_grad = lambda: (kept(), plain())[1]  # type: ignore[method-assign]
        result = one_step(run_of(setup, optimizer, progress))
        return result, grads, progress


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


@pytest.mark.parametrize("name", EVERY)
def test_rollouts_without_a_reward_change_nothing_for_the_others(micro_root: Path, name: str) -> None:
    """Advantages, gradients and states are those of the batch without them, to the bit."""

    def marked(rollouts: list[Rollout]) -> list[Rollout]:
        return [abstained(r) if out else r for r, out in zip(rollouts, some(rollouts), strict=True)]

    def without(rollouts: list[Rollout]) -> list[Rollout]:
        return [r for r, out in zip(rollouts, some(rollouts), strict=True) if not out]

    result, grads, progress = step_with(micro_root, name, marked)
    alone, grads_alone, progress_alone = step_with(micro_root, name, without)
    assert same(grads, grads_alone)
    assert same(progress.states, progress_alone.states)
    assert (result.batch is None) == (alone.batch is None)
    if result.batch is not None and alone.batch is not None:
        assert torch.equal(result.batch.advantages, alone.batch.advantages)
    assert not any(not rollout.scored for i in result.trained for rollout in [result.rollouts[i]])
    for name_, value in alone.metrics.items():
        counted = name_.startswith(("rollouts/", "groups/", "time/", "completion/", "entropy", "tokens", "learning"))
        # Rollouts that share a beginning are computed together, and round otherwise without those left out.
        rounded = name_.startswith("logp/") and value == pytest.approx(result.metrics[name_], rel=1e-6)
        assert counted or rounded or same(value, result.metrics[name_]), name_
    assert result.metrics["rollouts/abstained"] == sum(not rollout.scored for rollout in result.rollouts) > 0


HOSTILE: dict[str, Change] = {
    "nothing applies": lambda rollouts: [abstained(r) for r in rollouts],
    "nothing at all": lambda rollouts: [],
    "one applies": lambda rollouts: [r if i == 0 else abstained(r) for i, r in enumerate(rollouts)],
    "unequal groups": lambda rollouts: [r for g, rs in enumerate(by_group(rollouts)) for r in rs[: 1 + g % 4]],
    "groups of one": lambda rollouts: [rs[0] for rs in by_group(rollouts)],
    "all right": lambda rollouts: [rewarded(r, 1.0) for r in rollouts],
    "all wrong": lambda rollouts: [rewarded(r, 0.0) for r in rollouts],
    "all truncated": lambda rollouts: [r.replace(status="truncated") for r in rollouts],
    "some empty": lambda rollouts: [empty(r) if i % 2 else r for i, r in enumerate(rollouts)],
    "all empty": lambda rollouts: [empty(r) for r in rollouts],
    "as drawn": lambda rollouts: rollouts,
}


# One of each way to compare rollouts, and all of them in the long sweeps.
USUAL = {"grpo", "rloo", "dapo", "poise", "kto", "dpo", "knapsack", "vspo", "ppo", "sage", "pipo", "riskpo"}


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.exhaustive) for name in EVERY]
)
def test_no_batch_ends_a_run(micro_root: Path, name: str) -> None:
    """One step after the other, each on a worse batch: none raises, and nothing is not a number."""
    with micro.method_ready(micro_root, name, prompts_per_step=5, group_size=4) as (setup, optimizer, progress):
        for what, change in HOSTILE.items():
            changed(setup, change)
            result = one_step(run_of(setup, optimizer, progress))
            assert all(bool(p.isfinite().all()) for p in setup.policy.trainable()), what
            assert progress.skipped == 0, what
            if result.batch is not None:
                assert bool(result.batch.advantages.isfinite().all()), what


def test_a_budget_of_one_rollout_leaves_nothing_to_compare_and_says_so(micro_root: Path) -> None:
    with micro.ready(micro_root, "rloo+spo-single-stream:budget", prompts_per_step=4, group_size=4) as parts:
        result = one_step(run_of(*parts))
    assert result.batch is None
    assert result.metrics["groups/too_small"] == 4
    assert "needs to compare" in result.warnings[0]


def test_a_step_in_which_no_reward_applies_says_so(micro_root: Path) -> None:
    with micro.ready(micro_root, "grpo", prompts_per_step=2, group_size=2) as (setup, optimizer, progress):
        changed(setup, HOSTILE["nothing applies"])
        result = one_step(run_of(setup, optimizer, progress))
    assert "no reward applied to any of the 4 rollouts" in result.warnings[0]
    assert math.isnan(result.metrics["reward/mean"])
