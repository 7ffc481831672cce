"""Whether a rollout's calls of tools are sound, and whether it ends with an answer."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.signals.calls import answered, calls_valid
from cohort.types import Prompt, Request, Rollout, Turn
from tests.helpers import rollout_of

ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}},
}


def rollout(*messages: dict[str, Any], tools: Any = (ADD,), **changes: Any) -> Rollout:
    """A turn for each message of the policy's."""
    prompt = Prompt("p", "p", (2,), "p", tools=tools)
    turns = tuple(Turn(0, 3, ({"role": "assistant", "content": "", **message},)) for message in messages)
    return rollout_of(Request(prompt, (2,), 0, 8), [5, 6, 1], turns=turns, **changes)


def call(name: str = "add", arguments: Any = None) -> dict[str, Any]:
    return {"tool_calls": [{"function": {"name": name, "arguments": {"a": 1} if arguments is None else arguments}}]}


@pytest.mark.parametrize(
    ("messages", "sound"),
    [
        ([{"content": "4"}], True),
        ([call(), {"content": "4"}], True),
        ([call(arguments='{"a": 1, "b": 2}')], True),
        ([call(arguments="{")], False),
        ([call(arguments={"b": 2})], False),
        ([call(arguments={"a": 1, "c": 2})], False),
        ([call(arguments=[1])], False),
        ([call("mul")], False),
        ([call(), {"call_errors": ["no JSON"]}], False),
        ([], True),
    ],
)
def test_whether_calls_are_sound(messages: list[dict[str, Any]], sound: bool) -> None:
    assert calls_valid(rollout(*messages)) is sound


def test_of_tools_whose_schemas_are_not_known_calls_need_only_be_readable() -> None:
    assert calls_valid(rollout(call("mul", {"x": 1}), tools=()))
    assert not calls_valid(rollout({"call_errors": ["no JSON"]}, tools=()))
    assert not calls_valid(rollout({"content": "4"}, end="unparseable"))


def test_whether_it_ends_with_an_answer() -> None:
    assert answered(rollout(call(), {"content": "4"}, text="4"))
    assert not answered(rollout({"content": "4"}, call(), text="4"))
    assert not answered(rollout({"content": "4"}, text="4", status="truncated"))
    assert not answered(rollout({"content": ""}))
    assert answered(rollout(text="4"))
    assert not answered(rollout(text=" "))
