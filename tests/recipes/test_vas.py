"""VAS: half of the prompts by the variance of their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import BoundMethod
from cohort.recipes.vas import mixed, promotion_score, refreshed
from cohort.rewards.judge import ask
from cohort.types import Rollout, StepInfo
from cohort.types.access import Pool
from tests import micro
from tests.helpers import prompt_of, request_of, tiny_policy
from tests.stepping import run_of, sample

KEY = "curriculum/half_by_score"
RATES = [0.0, 0.25, 0.5, 0.75, 1.0, 0.5]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Prompts of which RATES of the answers are right."""
    policy = tiny_policy()
    prompts = [prompt_of(policy, name) for name in "abcdef"]

    def draw(rows: torch.Tensor, count: int) -> list[Rollout]:
        return [
            Rollout(request_of(prompts[row]), (), accuracy=float(k < RATES[row] * count))
            for row in rows.tolist()
            for k in range(count)
        ]

    return Pool(prompts, draw, lambda contexts: [], ask)


def picked(method: BoundMethod, pool: Pool, count: int, seed: int = 0) -> tuple[list[int], dict[str, Any]]:
    rows, states, _ = method.pick(count=count, rng=torch.Generator().manual_seed(seed), pool=pool)
    return rows.tolist(), states


def test_of_scores_alone_what_is_always_right_or_wrong_never_comes(pool: Pool) -> None:
    method = registry.method("vas(ratio=1.0)")
    states = method.init(size=6)
    for seed in range(10):
        rows, states = picked(method.bind(states), pool, 4, seed)
        assert {0, 4}.isdisjoint(rows)
    want = torch.tensor([0, 0.75, 1, 0.75, 0, 1], dtype=torch.float64)
    assert torch.allclose(states[KEY]["weights"], want, atol=1e-6)


def test_without_scores_it_goes_through_one_permutation(pool: Pool) -> None:
    method = registry.method("vas(ratio=0.0)")
    states, seen = method.init(size=6), []
    for seed in range(4):
        rows, states = picked(method.bind(states), pool, 3, seed)
        seen += rows
    assert sorted(seen[:6]) == list(range(6))
    assert seen[:6] == seen[6:]


def test_scores_are_renewed_when_it_is_time_and_flat_ones_are_drawn_evenly(pool: Pool) -> None:
    method, asked = registry.method("vas(refresh=3)"), []

    def flat(rows: torch.Tensor, count: int) -> list[Rollout]:
        asked.append(count)
        return [Rollout(request_of(pool.prompts[row]), (), accuracy=1.0) for row in rows.tolist() for _ in range(count)]

    states = method.init(size=6)
    for step in range(7):
        bound = method.bind(states, StepInfo(step=step))
        rows, states = picked(bound, Pool(pool.prompts, flat, pool.states, ask), 5, step)
        assert len(rows) == 5
    assert asked == [8, 8, 8]
    assert not states[KEY]["weights"].any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=5), st.integers(0, 9), st.integers(0, 12), st.integers(1, 10))
def test_a_batch_has_all_drawn_and_the_next_in_turn(drawn: list[int], start: int, count: int, size: int) -> None:
    order = torch.randperm(size, generator=torch.Generator().manual_seed(start))
    rows, position = mixed(torch.tensor(drawn, dtype=torch.int64), order, min(start, size), count)
    assert rows.numel() == len(drawn) + count
    assert 0 <= position <= size
    left = rows.tolist()
    for each in drawn:
        left.remove(each)
    assert all(0 <= row < size for row in left)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_weights_lie_between_0_and_1(scores: list[float], momentum: float) -> None:
    first = refreshed(None, torch.tensor(scores, dtype=torch.float64), momentum=momentum)
    second = refreshed(first, torch.tensor(scores[::-1], dtype=torch.float64), momentum=momentum)
    for weights in (first, second):
        assert bool(((weights >= 0) & (weights <= 1)).all())
    assert torch.equal(refreshed(first, first, momentum=1.0), first)


def test_the_outcome_counts_most_where_it_is_open() -> None:
    parts = {"weight_outcome": 1.0, "weight_diversity": 0.0}
    assert promotion_score([1, 0], 0.3, **parts) == 0.25
    assert promotion_score([1, 1], 0.3, **parts) == promotion_score([0, 0], 0.3, **parts) == 0
    assert promotion_score([1, 1], 0.3, weight_outcome=1.0, weight_diversity=0.5) == pytest.approx(0.15)


@pytest.mark.parametrize("metric", ["self-bleu", "distinct-3", "edit-distance"])
def test_what_is_drawn_to_score_is_counted_and_not_trained_on(micro_root: Path, metric: str) -> None:
    expression = f"vas(scoring_rollouts=5, metric='{metric}', weight_diversity=0.2)"
    with micro.ready(micro_root, expression, prompts_per_step=2, group_size=4) as (setup, _, progress):
        run = run_of(setup, None, progress)
        rollouts, chosen, method = sample(run)
        assert len(rollouts) == len(chosen) == 8
        drawn = sum(len(r.tokens) for r in rollouts)
        again = run.source.next(run.info(0), progress.states)
    assert float(method.states[KEY]["weights"].max()) > 0
    assert [r.tokens for r in again.rollouts] == [r.tokens for r in rollouts]
    # Five answers of one to four tokens for each of the eight prompts.
    assert 40 <= again.tokens - drawn <= 160


def test_what_no_verifier_judged_spoils_no_score() -> None:
    how = {"weight_outcome": 1.0, "weight_diversity": 0.0}
    assert promotion_score([1.0, 0.0, float("nan")], 0.0, **how) == 0.25
    assert promotion_score([float("nan")], 0.0, **how) == 0.0
