"""The rewards `tagged` and `action`."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.spec import parse


def values(reward: str, said: list[str], answer: list[Any]) -> list[float | None]:
    (spec,) = parse([reward])
    return spec.load()(completions=said, answer=answer)


def test_the_answer_in_the_first_tags_is_compared() -> None:
    said = [
        "<answer>4</answer>",
        "<answer>8/2</answer> <answer>5</answer>",
        "<answer>5</answer> <answer>4</answer>",
        "4",
        "<answer>\n5\n</answer>",
        "<answer></answer>",
        "<answer>4</answer>",
    ]
    assert values("tagged", said, ["4", "4", "4", "4", "4", "4", None]) == [1, 1, 0, 1, 0, 0, None]
    assert values("tagged:final", ["<final>x</final><answer>y</answer>"], ["x"]) == [1]


GOLD = {"action": "CLICK", "position": [0.5, 0.5]}


def test_actions_are_compared_by_name_and_by_place() -> None:
    said = [
        "<think>a</think><action>{'action': 'click', 'position': [0.5, 0.6]}</action>",
        '<action>{"action": "click", "position": [0.9, 0.9]}</action>',
        '<action>{"action": "click"}</action>',
        '<action>{"action": "type", "position": [0.5, 0.5]}</action>',
        "<action>click</action>",
        "",
    ]
    assert values("action:name", said, [GOLD] * 6) == [1, 1, 1, 0, 0, 0]
    assert values("action:place", said, [str(GOLD)] * 6) == [1, 0, 0, 0, 0, 0]
    assert values("action:place:1", said[:2], [GOLD] * 2) == [1, 1]
    assert values("action:name", ['{"action": "scroll"}'], [{"action": "SCROLL", "position": None}]) == [1]
    assert values("action:place", ['{"action": "scroll"}'], [{"action": "SCROLL", "position": None}]) == [0]
    assert values("action:name", ["x"], [None]) == [None]


@pytest.mark.parametrize(
    "reward", ["action:place:far", "action:place:-1", "action:place:nan", "tagged:a b", "action:x", "action"]
)
def test_arguments_that_are_none_are_refused(reward: str) -> None:
    with pytest.raises(UsageError, match=reward.split(":")[0]):
        values(reward, ["x"], ["x"])


def test_rows_whose_answer_is_no_action_are_refused_before_anything_is_drawn() -> None:
    (spec,) = parse(["action:name"])
    spec.check_rows([("data, row 1", {"answer": GOLD}), ("data, row 2", {"answer": None})])
    with pytest.raises(UsageError, match=r"data, row 2: the reward 'action'.*holds no action"):
        spec.check_rows([("data, row 2", {"answer": "left"})])
