"""gymnasium's environments played in texts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cohort.environments.adapters.gymnasium import ids, load, spoken, texts
from cohort.errors import UsageError
from tests.environments.adapters import needs, say

pytestmark = needs("gymnasium")
LAKE = {"actions": "left,down,right,up", "is_slippery": False}


def test_a_game_that_renders_as_text_is_played_by_names_of_actions() -> None:
    maker = load("FrozenLake-v1", LAKE)
    game = maker.make()
    shown = game.reset(maker.rows(False)[0], 0)
    assert "left, down, right, up" in shown
    assert "[S]FFF" in shown  # what a terminal colours stands in brackets
    for action in ("I go RIGHT.", "right", "down", "down", "first right, but rather DOWN!"):
        step = game.step(say(action))
        assert not step.done
        assert step.reward == 0.0
    assert "HF[F]G" in step.observation
    step = game.step(say("right"))
    assert step.done
    assert step.reward == 1.0
    game.close()


def test_an_answer_without_an_action_costs_what_was_said_and_moves_nothing() -> None:
    maker = load("FrozenLake-v1", {**LAKE, "invalid_reward": -0.5})
    game = maker.make()
    game.reset({}, 0)
    step = game.step(say("<think>left or right?</think>hm, upwards"))
    assert step.reward == -0.5
    assert "left, down, right, up" in step.observation
    assert "S[F]FF" in game.step(say("right")).observation


def test_a_limit_of_the_environment_s_own_ends_by_turns() -> None:
    game = load("FrozenLake-v1", {**LAKE, "max_episode_steps": 2}).make()
    game.reset({}, 0)
    assert not game.step(say("left")).done
    step = game.step(say("left"))
    assert step.done
    assert step.end == "turns"


def test_the_same_seed_gives_the_same_game_and_the_row_s_goes_first() -> None:
    maker = load("Blackjack-v1", {"actions": "stick,hit"})

    def shown(row: dict[str, Any], seed: int) -> str:
        return maker.make().reset(row, seed)

    assert shown({"seed": 3}, 1) == shown({"seed": 3}, 2)
    assert len({shown({}, seed) for seed in range(8)}) > 1


def test_rows_are_seeds_and_those_held_out_are_others() -> None:
    maker = load("FrozenLake-v1", {"size": 5, "seed": 7})
    trained, held_out = maker.rows(False), maker.rows(True)
    assert [row["seed"] for row in trained] == [7, 8, 9, 10, 11]
    assert not {row["seed"] for row in trained} & {row["seed"] for row in held_out}


def test_texts_are_read_and_written_as_they_are() -> None:
    import gymnasium as gym

    class Echo(gym.Env[Any, Any]):
        observation_space = gym.spaces.Dict(
            {"heard": gym.spaces.Text(99, min_length=0), "count": gym.spaces.Discrete(9)}
        )
        action_space = gym.spaces.Text(99)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return {"heard": "", "count": 0}, {}

        def step(self, action: str) -> Any:
            return {"heard": action, "count": 1}, 0.25, action == "bye", False, {}

    gym.register("CohortEcho-v0", entry_point=Echo)
    try:
        game = load("CohortEcho-v0", {"instructions": "Say something."}).make()
        assert game.reset({}, 0).startswith("Say something.\n\nheard: ")
        step = game.step(say("<think>what?</think> bye"))
        assert step.observation == "heard: bye\ncount: 1"
        assert step.reward == 0.25
        assert step.done
    finally:
        del gym.registry["CohortEcho-v0"]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("FrozenLak-v1", {}, "Did you mean: `FrozenLake`"),
        ("FrozenLake-v9", {}, "v9"),
        ("not an id", {}, "Malformed"),
        ("no_such_module:X-v0", {}, "no_such_module"),
        ("CartPole-v1", {}, "no text"),
        ("FrozenLake-v1", {"actions": "left,right"}, "has 4 actions"),
        ("FrozenLake-v1", {"actions": "a,a,b,c"}, "has 4 actions"),
        ("FrozenLake-v1", {"slippery": True}, "slippery=True"),
        ("FrozenLake-v1", {"size": 0}, "at least 1"),
        ("FrozenLake-v1", {"seed": "x"}, "whole number"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=re.escape(expected)):
        load(name, options)


@pytest.mark.parametrize(
    ("text", "names", "place"),
    [
        ("up", ("up", "down"), 0),
        ("up, no: Down!", ("up", "down"), 1),
        ("upwards", ("up", "down"), None),
        ("turn left", ("left", "turn left"), 1),
        ("10", ("1", "10"), 1),
        ("", ("1",), None),
    ],
)
def test_the_action_named_last_is_meant(text: str, names: tuple[str, ...], place: int | None) -> None:
    assert spoken(text, names) == place


def test_observations_of_parts_are_told_a_part_a_line() -> None:
    assert texts({"a": "x", "b": (1, 2)}) == "a: x\nb: 1, 2"


def test_what_can_be_named_is_listed() -> None:
    assert "FrozenLake-v1" in ids()
    assert not any(name.startswith("Ant-") for name in ids())
