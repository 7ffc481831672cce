"""TextArena's games: alone, in self-play, and against others."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from cohort.environments.adapters.textarena import any_move, ids, load
from cohort.errors import UsageError
from tests.environments.adapters import needs, say

pytestmark = needs("textarena")


def play(game: Any, moves: str) -> Any:
    for move in moves:
        step = game.step(say(f"I take [{move}]"))
    return step


def test_a_game_of_one_player_is_rewarded_at_its_end() -> None:
    maker = load("GuessTheNumber-v0", {})
    game = maker.make()
    first = game.reset({"seed": 3}, 0)
    assert first.agent == ""
    assert "between 1 and 20" in first.content
    low, high = 1, 20
    for _ in range(10):
        guess = (low + high) // 2
        step = game.step(say(f"[{guess}]"))
        if step.done:
            break
        assert step.observation.content in ("The target number is higher.", "The target number is lower.")
        low, high = (guess + 1, high) if "higher" in step.observation.content else (low, guess - 1)
    assert step.reward == 1.0
    assert step.components == {"invalid": 0.0}


def test_in_self_play_each_player_hears_what_is_new_to_it_and_gets_its_own_reward() -> None:
    game = load("TicTacToe-v0", {}).make()
    first = game.reset({}, 0)
    assert first.agent == "player 0"
    assert "you will be 'O'" in first.content
    second = game.step(say("[4]")).observation
    assert second.agent == "player 1"
    assert "you will be 'X'" in second.content
    assert "[Player 0] [4]" in second.content
    third = game.step(say("[0]")).observation
    assert third.agent == "player 0"
    assert "[Player 1] [0]" in third.content
    assert "you will be" not in third.content  # the rules were told before
    assert third.content.count("Current Board") == 1
    over = play(game, "315")
    assert over.done
    assert over.rewards == {"player 0": 1.0, "player 1": -1.0}
    assert over.reward == 0.0


def test_who_breaks_the_rules_twice_loses() -> None:
    game = load("TicTacToe-v0", {}).make()
    game.reset({}, 0)
    again = game.step(say("I pass")).observation
    assert again.agent == "player 0"
    assert "invalid move" in again.content
    over = game.step(say("I pass"))
    assert over.rewards == {"player 0": -1.0, "player 1": 1.0}
    assert over.components == {"invalid": 1.0}


def test_games_draw_from_generators_of_their_own() -> None:
    maker = load("PigDice-v0-50", {})

    def rolls(disturbed: bool) -> list[str]:
        game, other = maker.make(), maker.make()
        game.reset({"seed": 5}, 0)
        seen = []
        for k in range(12):
            if disturbed:
                other.reset({"seed": k}, 0)
                random.random()
            step = game.step(say("[roll]"))
            seen.append("" if step.done else step.observation.content)
            if step.done:
                break
        return seen

    state = random.getstate()
    assert rolls(False) == rolls(False)
    assert random.getstate() == state
    assert rolls(True) == rolls(False)


def test_against_an_opponent_the_policy_plays_each_side_in_turn() -> None:
    maker = load("TicTacToe-v0", {"opponent": "random"})
    begins = maker.make().reset({"seed": 0}, 0)
    follows = maker.make().reset({"seed": 1}, 0)
    assert begins.agent == follows.agent == ""
    assert "You are Player 0" in begins.content
    assert "You are Player 1" in follows.content
    assert "placed their symbol" in follows.content
    assert maker.make().reset({"seed": 1}, 7) == follows


def test_an_opponent_of_the_user_s_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def first(seen):\n    return '[' + next(c for c in '012345678' if f\"'[{c}]'\" in seen) + ']'\n")
    game = load("TicTacToe-v0", {"opponent": f"{file}:first"}).make()
    game.reset({"seed": 0}, 0)
    step = game.step(say("[4]"))
    assert "[Player 1] [0]" in step.observation.content
    assert play(game, "3").observation.content.count("[Player 1] [1]") == 1
    won = play(game, "5")
    assert (won.reward, won.rewards, won.done) == (1.0, {}, True)


def test_a_player_can_be_shown_the_whole_game_anew_each_turn() -> None:
    game = load("TicTacToe-v0-train", {"fresh": True}).make()
    assert game.reset({}, 0).fresh
    seen = game.step(say("[4]")).observation
    assert seen.fresh
    assert "You are Player 1" in seen.content
    seen = game.step(say("[0]")).observation
    assert "You are Player 0" in seen.content


def test_moves_are_taken_from_the_game_s_list() -> None:
    chance = random.Random(0)
    drawn = {any_move("rules [9]\nAvailable Moves: '[0]', '[ 7 ]'", chance) for _ in range(20)}
    assert drawn == {"[0]", "[ 7 ]"}
    with pytest.raises(ValueError, match="lists its moves"):
        any_move("your turn [1]", chance)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("TicTacTo-v0", {}, "did you mean TicTacToe-v0"),
        ("TicTacToe-v0", {"players": 3}, "for 3 players: AssertionError"),
        ("TicTacToe-v0", {"opponent": "nobody"}, "opponent is self, random, or path.py:function"),
        ("TicTacToe-v0", {"opponent": "no_such.py:f"}, "cannot be loaded"),
        ("TicTacToe-v0", {"colour": 1}, "colour"),
        ("Debate-v0", {}, "OPENROUTER_API_KEY"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], expected: str, monkeypatch: Any) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(UsageError, match=re.escape(expected)):
        load(name, options)


def test_what_can_be_named_is_listed() -> None:
    assert "TicTacToe-v0" in ids()
    assert "TicTacToe-v0-raw" not in ids()
