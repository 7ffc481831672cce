"""Walking to a goal: the world, and the rules that end an episode."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.environments import Step
from cohort.environments.navigation import GridWorld, Walk, moves_of


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        ("forward left", ["forward", "left"]),
        ("Forward, forward; stop.", ["forward", "forward", "stop"]),
        ("ffs", ["forward", "forward", "stop"]),
        ("f r", ["forward", "right"]),
        ("jump", ["jump"]),
        ("", []),
    ],
)
def test_moves_are_read_from_words_and_letters(text: str, moves: list[str]) -> None:
    assert moves_of(text) == moves


@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 10_000))
def test_the_shortest_path_leads_to_the_goal(world: int) -> None:
    grid = GridWorld()
    first = grid.reset({"world": world}, 0)
    assert grid.goal in first.partition(";")[0]
    path, at = grid._path(), grid.place
    assert grid.expert_steps == len(path) + 1
    assert grid.place == at
    said: Step | None = None
    for k in range(0, len(path), 3):
        said = grid.step({"role": "assistant", "content": " ".join(path[k : k + 3])})
        assert not said.done
    said = grid.step({"role": "assistant", "content": "stop"})
    assert (said.done, said.reward) == (True, 1.0)
    assert said.components == {"stopped": 1.0, "distance": grid._distance(), "expert_steps": len(path) + 1.0}
    assert grid._distance() <= 1


@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 10_000), replayed=st.integers(1, 20))
def test_a_part_of_the_path_has_been_walked_already(world: int, replayed: int) -> None:
    whole, rest = GridWorld(), GridWorld()
    whole.reset({"world": world}, 0)
    rest.reset({"world": world, "replayed": replayed, "step_budget": 5, "turn_budget": 2}, 0)
    path = whole._path()
    assert len(rest._path()) == max(0, len(path) - replayed)
    assert (rest.walk.step_budget, rest.walk.turn_budget) == (5, 2)


@settings(max_examples=50, deadline=None)
@given(
    turns=st.lists(st.lists(st.sampled_from(["forward", "left", "stop", "?"]), max_size=3), max_size=8),
    steps=st.integers(1, 6),
    most=st.integers(1, 5),
)
def test_steps_never_exceed_the_budget_by_more_than_one(turns: list[list[str]], steps: int, most: int) -> None:
    walk, made = Walk(steps, most, 1.0), []
    for actions in turns:
        if not walk.reason:
            walk.take(actions, made.append, lambda: 0.5)
    assert walk.steps <= steps + 1
    assert walk.turn <= most + 1
    assert "?" not in made
    assert "stop" not in made


def test_groups_meet_one_world_and_views_are_the_walkers_own() -> None:
    a, b = GridWorld(), GridWorld()
    assert a.reset({}, 5) == b.reset({}, 5)
    assert len({GridWorld().reset({}, seed) for seed in range(20)}) > 10
    before = a._view()
    for _ in range(4):
        a._move("left")
    assert a._view() == before
    a._move("left")
    a._move("right")
    assert a._view() == before
