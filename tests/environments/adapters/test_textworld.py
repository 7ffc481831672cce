"""TextWorld's games."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.environments.adapters.textworld import load
from cohort.errors import UsageError
from tests.environments.adapters import needs, say

pytestmark = needs("textworld")


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import textworld

    options = textworld.GameOptions()
    options.seeds, options.nb_rooms, options.nb_objects, options.quest_length = 3, 2, 4, 2
    folder = tmp_path_factory.mktemp("games")
    options.path = str(folder / "one.z8")
    _, game = textworld.make(options)
    (folder / "walkthrough.txt").write_text("\n".join(game.metadata["walkthrough"]))
    return folder


def test_a_game_is_won_by_its_walkthrough(games: Path) -> None:
    maker = load(str(games / "*"), {"commands": True})
    rows = maker.rows(False)
    assert [Path(row["game"]).name for row in rows] == ["one.z8"]
    assert maker.rows(True) is None
    game = maker.make()
    shown = game.reset(rows[0], 0)
    assert shown.startswith("Hey, thanks") or "TextWorld" in shown.splitlines()[0]
    assert "$$" not in shown
    assert "Commands: " in shown
    for command in (games / "walkthrough.txt").read_text().splitlines():
        step = game.step(say(command))
    assert (step.reward, step.components, step.done) == (1.0, {"won": 1.0}, True)
    game.close()


def test_a_game_ends_after_its_most_commands(games: Path) -> None:
    game = load(str(games / "one.z8"), {"max_steps": 2}).make()
    game.reset({}, 5)
    assert not game.step(say("look")).done
    step = game.step(say("look"))
    assert (step.done, step.end, step.reward) == (True, "turns", 0.0)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("no/such/*.z8", {}, "no such game"), ("no/such.z8", {"turns": 3}, "no option turns")],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(name, options)
