"""From what a user writes to what makes environments."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from cohort.environments.spec import EnvironmentSpec, described, of_class, parse, parted
from cohort.errors import UsageError
from tests.environments import hostile


def test_options_stand_behind_a_question_mark() -> None:
    assert parted("gymnasium:FrozenLake-v1?is_slippery=False&map_name=4x4&n=3&split=train+test&empty=") == (
        "gymnasium:FrozenLake-v1",
        {"is_slippery": False, "map_name": "4x4", "n": 3, "split": "train+test", "empty": ""},
    )
    assert parted("path.py:Class") == ("path.py:Class", {})


@pytest.mark.parametrize("value", ["a/b.py:Class?x=1", "textarena:TicTacToe-v0", hostile.Hostile, hostile.made])
def test_names_classes_and_functions_are_taken(value: Any) -> None:
    spec = parse(value)
    assert (spec.text, spec.given) == ((value, None) if isinstance(value, str) else ("", value))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere", "write path/to/file.py:Class, or one of gymnasium:ID"),
        ("gymnasum:X", "did you mean gymnasium:ID?"),
        ("gymnasium:", "write path/to/file.py:Class"),
        (3, "name one"),
        (None, "name one"),
    ],
)
def test_what_names_nothing_is_refused(value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(value)


def test_a_class_says_what_it_has() -> None:
    made = of_class(hostile.OwnRows, "it", {"wait": 0.5})
    assert (made.components, made.rewards, made.waits, made.turns) == (("style",), True, False, None)
    assert made.make().wait == 0.5
    assert len(made.rows(False) or ()) == 4
    assert of_class(hostile.HostileAsync, "it", {}).waits
    assert not of_class(hostile.Unrewarding, "it", {}).rewards
    assert of_class(hostile.Hostile, "it", {}).rows(True) is None


def test_what_a_class_has_for_itself_is_its_own_affair() -> None:
    class Grid:
        rows = 3
        components: ClassVar[list[int]] = [1, 2]
        rewards: ClassVar[list[float]] = []
        turns = 0

        def held_out_rows(self) -> list[int]:
            raise AssertionError

        def reset(self, row: Any, seed: int) -> str:
            return ""

        def step(self, message: Any) -> None: ...

    made = of_class(Grid, "it", {})
    assert (made.components, made.rewards, made.turns, made.rows(False), made.rows(True)) == (
        (),
        True,
        None,
        None,
        None,
    )


def test_an_environment_is_described_the_same_in_every_run() -> None:
    assert described(hostile.Hostile) == "<environment Hostile given from Python>"
    assert described("a.py:B") == "a.py:B"
    assert EnvironmentSpec(given=hostile.made).name == "environment <environment made given from Python>"
