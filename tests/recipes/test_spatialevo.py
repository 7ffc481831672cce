"""SpatialEvo: weak kinds of questions come more often, and each role is compared with itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.kinds import counted, task_weights
from cohort.types import Batch, StepInfo
from tests.helpers import random_batch

ROWS = [{"task": task, "room": room} for room in range(3) for task in ("a", "b", "room_size")]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(1, 9)), max_size=8))
def test_weights_lie_between_the_least_and_1_and_fall_with_accuracy(questions):
    stats = torch.zeros(3, 2, dtype=torch.float64)
    assert task_weights(stats).unique().numel() == 1
    for kind, accuracy, times in questions:
        stats = counted(stats, kind, accuracy, times, None)
    weights = task_weights(stats)
    assert ((weights >= 0.05) & (weights <= 1)).all()
    better = task_weights(counted(stats, 0, 1.0, 1, None))
    assert better[0] <= task_weights(counted(stats, 0, 0.0, 1, None))[0]
    assert torch.equal(better[1:], weights[1:])


def drawn(method, states, many):
    found = []
    for step in range(many):
        rng = torch.Generator().manual_seed(step)
        rows, states, _ = method.bind(states).pick(count=3, rng=rng)
        found += rows.tolist()
    return found, states


def test_every_room_comes_once_an_epoch_and_weak_kinds_more_often():
    method = registry.method("spatialevo")
    states = method.init(size=9, rows=ROWS)
    (key,) = (key for key, state in states.items() if "stats" in state)
    states[key]["stats"] = torch.tensor([[50.0, 50.0], [50.0, 0.0], [50.0, 50.0]], dtype=torch.float64)
    rows, _ = drawn(method, states, 60)
    assert all(sorted(row // 3 for row in rows[i : i + 3]) == [0, 1, 2] for i in range(0, len(rows), 3))
    assert sum(row % 3 == 1 for row in rows) > 0.8 * len(rows)


def two_roles():
    """A prompt with three questioners; two ask the same, one another question; two answers each."""
    question = torch.tensor([0, 0, 0, 7, 7, 7, 7, 9, 9.0])
    episode = torch.tensor([0, 1, 2, 0, 0, 1, 1, 2, 2])
    solved = torch.tensor([0, 0, 0, 1.0, 0, 1, 1, 0.5, 1])
    size = question.numel()
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 1, 1, 0, 1], dtype=torch.float64)
    return Batch(
        mask=torch.ones(size, 2, dtype=torch.bool),
        tokens={},
        rollouts={
            "group": (question > 0).long(),
            "episode": episode,
            "row": torch.full((size,), 2),
            "rewards": rewards,
            "accuracy": rewards,
            "reward_components": torch.stack([rewards.float(), question, solved], 1),
        },
    )


INFO = StepInfo(reward_names=("environment", "question", "solved"))


def test_a_question_counts_as_often_as_it_was_asked():
    method = registry.method("spatialevo")
    states = method.init(size=9, rows=ROWS)
    batch = two_roles()
    after = method.bind(states, INFO).on_rollouts(batch, [None] * batch.size)
    (found,) = (state for state in after.values() if "stats" in state)
    # Both questions are about room_size, whose target is 0.5: accuracies of 0.75 count 1.
    assert found["stats"].tolist() == [[0, 0], [0, 0], [3, 3]]


def test_answers_are_compared_with_those_to_the_same_question_and_further_ones_left_out():
    method = registry.method("spatialevo", answers=2, std_ddof=0)
    bound = method.bind(method.init(size=9, rows=ROWS), INFO)
    prepared = bound.prepare(two_roles())
    assert prepared.trained.tolist() == [0, 1, 2, 3, 4, 7, 8]
    found = prepared.assigned["outcome_advantage"].tolist()
    third = 2**0.5
    assert found == pytest.approx([third, -third / 2, -third / 2, 1, -1, -1, 1], abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_without_roles_it_is_grpo(seed):
    batch = random_batch(seed, groups=(4, 3, 5))
    plain = registry.method("grpo", std_ddof=1).bind().assign(batch).advantages
    info = StepInfo(reward_names=("spatial", "format"))
    assert torch.equal(registry.method("spatialevo").bind(info=info).assign(batch).advantages, plain)
