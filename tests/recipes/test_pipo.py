"""PIPO: an update that helped is repeated on the rollouts it came from."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from cohort import registry
from cohort.methods import Method, MethodError
from cohort.recipes.pipo import improvement_scale, rectified, verdict
from cohort.reductions.groups import group_flat, group_sum
from cohort.training import checkpoint
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.loop import one_step
from cohort.training.run import Result, train
from cohort.types import Batch, Prompt, Request
from tests import micro
from tests.helpers import random_batch, rollout_of
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "credit/retrospect"


def mean_of(value: float) -> Batch:
    rewards = torch.full((2,), value, dtype=torch.float64)
    return Batch.of(torch.ones(2, 1), group=torch.zeros(2, dtype=torch.int64), rewards=rewards)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 1))
def test_the_size_of_the_local_term_does_not_depend_on_the_success_rate(seed: int, phi: float) -> None:
    batch = batch_for("pipo", seed=seed, groups=(2, 5, 3, 8))
    made = registry.method("pipo").bind({KEY: {}}).assign(batch)
    rewards = improvement_scale(made, phi) * made["outcome_advantage"]
    total = group_sum(rewards.abs(), made.groups)
    size = torch.bincount(made.groups.index).double()
    flat = group_flat(made.rewards, made.groups)
    assert torch.allclose(total, torch.where(flat, 0.0, phi * size))
    assert (rewards.abs() <= phi * size[made.groups.index] + 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_verdict_rises_with_the_mean_and_is_rectified(
    means: list[float], current: float, low: float, high: float
) -> None:
    xi = verdict(means, current)[2]
    assert verdict(means, current + 0.1)[2] > xi
    phi = rectified(xi, phi_low=-low, phi_high=high)
    assert -low <= phi <= high
    assert (rectified(xi) == 0) == (xi <= 0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=9))
def test_memory_holds_the_last_means_and_judges_when_it_is_full(means: list[float]) -> None:
    method = registry.method("pipo(window=3)")
    states = method.init(size=1)
    for t, mean in enumerate(means, 1):
        before = states[KEY]["means"]
        states = method.bind(states).on_rollouts(mean_of(mean), [])
        assert states[KEY]["means"] == pytest.approx(means[max(0, t - 3) : t])
        want = rectified(verdict(before, mean)[2]) if t > 3 else 0.0
        assert states[KEY]["phi"] == pytest.approx(want)


def remembered(method: Method, batch: Batch, *, mean: float) -> tuple[dict[str, Any], list[Any]]:
    """States and recalls of the step after `batch`, with this mean reward after a history around 0.5."""
    requests = [Request(Prompt(str(i), "", (1, i), ""), (1, i), 0, 6) for i in range(batch.size)]
    rollouts = [rollout_of(request, [3]) for request in requests]
    states = {KEY: {**method.init(size=1)[KEY], "means": [0.4, 0.6]}}
    states = method.bind(states).on_step_end(batch, rollouts, None)
    states = method.bind(states).on_rollouts(mean_of(mean), [])
    return states, method.bind(states).replay()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_what_is_recalled_is_the_step_before_with_its_own_policy(seed: int) -> None:
    method = registry.method("pipo(window=2)")
    batch = method.bind({KEY: {}}).assign(random_batch(seed))
    states, recalls = remembered(method, batch, mean=0.53)
    phi = states[KEY]["phi"]
    assert 0 < phi < 0.5
    (recall,) = recalls
    assert recall.before
    assert [context.tokens for context in recall.contexts] == [(1, i) for i in range(batch.size)]
    assert torch.equal(recall.batch.old_logp, batch.old_logp)
    want = improvement_scale(batch, phi)[:, None] * batch.advantages
    assert torch.allclose(recall.batch.advantages, want)
    # A step of one update scores the rollouts once, under the policy that drew them.
    bare = Batch(
        mask=batch.mask, tokens={k: v for k, v in batch._tokens.items() if k != "old_logp"}, rollouts=batch._rollouts
    )
    _, (recall,) = remembered(method, bare, mean=0.53)
    assert torch.equal(recall.batch.old_logp, batch.logp)


def test_harm_is_not_repeated_unless_it_is_to_be_taken_back() -> None:
    batch = registry.method("pipo").bind({KEY: {}}).assign(random_batch(1))
    assert remembered(registry.method("pipo(window=2)"), batch, mean=0.3)[1] == []
    (recall,) = remembered(registry.method("pipo(window=2, phi_low=-0.5)"), batch, mean=0.3)[1]
    acting = recall.batch.mask & (batch.advantages != 0)
    assert (recall.batch.advantages * batch.advantages)[acting].max() < 0
    # A step without an update leaves nothing to judge.
    method = registry.method("pipo(window=2)")
    states, _ = remembered(method, batch, mean=0.3)
    states = method.bind(states).on_rollouts(mean_of(0.9), [])
    assert states[KEY]["phi"] > 0
    assert method.bind(states).replay() == []
    with pytest.raises(MethodError, match="phi_low"):
        registry.method("pipo(phi_low=1.0)")


def test_an_extra_update_happens_exactly_when_the_last_one_helped(micro_root: Path) -> None:
    with micro.ready(micro_root, "pipo(window=2)", steps=10, group_size=4, seed=3) as (setup, optimizer, progress):
        means: list[float] = []
        extra = []
        for _ in range(10):
            before = progress.updates
            result = one_step(run_of(setup, optimizer, progress))
            mean = sum(r.reward for r in result.rollouts) / len(result.rollouts)
            helped = len(means) == 2 and verdict(means, mean)[2] > 0
            means = [*means, mean][-2:]
            assert progress.updates - before == 1 + helped
            assert result.metrics["rollouts/trained"] == len(result.rollouts)
            extra.append(helped)
        assert 0 < sum(extra) < 8


def test_it_repeats_whatever_method_it_goes_with(micro_root: Path) -> None:
    """Fields that other methods' losses read come back with the rollouts."""
    method = "pipo(window=2, phi_low=0.1)+grpo+etr+ppo:critic"
    with micro.ready(micro_root, method, steps=4, group_size=4, updates=2) as (setup, optimizer, progress):
        for _ in range(4):
            one_step(run_of(setup, optimizer, progress))
        assert progress.updates == 4 * 2 + 2
        assert progress.skipped == 0


def run(folder: Path, root: Path, *, stop: int = 0) -> Result:
    config = {
        **micro.CONFIG,
        "model": str(micro.folder(root)),
        "method": "pipo(window=2, phi_low=-0.5)",
        "steps": 6,
        "group_size": 4,
        "out": str(folder),
    }
    display = Display(quiet=True)
    if stop:
        display.step = lambda step, *a, **k: signal.raise_signal(signal.SIGINT) if step == stop else None  # type: ignore[method-assign]
    return train(make_config(config), resume=folder.exists(), display=display)


def test_what_it_remembers_survives_a_stop(micro_root: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", micro_root)
    assert run(tmp_path / "part", micro_root, stop=4).stopped
    resumed = run(tmp_path / "part", micro_root)
    first, second = (load_file(r.folder / "final" / "model.safetensors") for r in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    found = [checkpoint.newest(r.folder / "checkpoints") for r in (whole, resumed)]
    updates = [checkpoint.read_state(path)["progress"]["updates"] for path in found if path]
    assert updates[0] == updates[1] > 6
