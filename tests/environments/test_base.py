"""The types of environments, and the environment of one turn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cohort.environments import EnvironmentFactory, Observation, SingleTurn, Step
from cohort.environments.base import observed, stepped
from cohort.errors import UsageError
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from cohort.types import Prompt
from tests.environments.worlds import Worlds, grader

ROOT = Path(__file__).parents[2]
CHAT = [{"role": "user", "content": "1+1?"}]


@pytest.mark.parametrize("value", ["a text", CHAT, Observation("a text", tools=({"name": "f"},))])
def test_texts_and_messages_are_observations(value: Any) -> None:
    found = observed(value)
    assert isinstance(found, Observation)
    assert found.content == (value.content if isinstance(value, Observation) else value)
    assert observed(found) is found


@pytest.mark.parametrize("value", [None, 3, [], ["a text"], [{"role": 1, "content": "x"}], {"role": "user"}])
def test_anything_else_is_none(value: Any) -> None:
    with pytest.raises(TypeError, match=r"observation is a text|has 'role' and 'content'"):
        observed(value)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"agent": 3}, "agent is a text, not int"),
        ({"conversation": None}, "conversation is a text, not NoneType"),
        ({"tools": "abc"}, "tools are a list of schemas, not str"),
        ({"tools": ["abc"]}, "schema has a 'name'"),
        ({"tools": [{"type": "function"}]}, "schema has a 'name'"),
        ({"tools": [{"function": {"name": "f", "parameters": "x"}}]}, "tool 'f' are a JSON schema, not str"),
        (
            {"tools": [{"name": "f", "parameters": {"properties": {"a": "int"}}}]},
            "tool 'f' are a JSON schema, not dict",
        ),
    ],
)
def test_what_an_observation_says_beside_its_content_has_its_type(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        observed(Observation("a text", **attributes))


@pytest.mark.parametrize("name", ["components", "rewards"])
@pytest.mark.parametrize("value", [None, [1.0]])
def test_numbers_of_a_step_have_names(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} are a mapping of names to numbers"):
        stepped(Step("more", **{name: value}), ())


def test_steps_that_an_episode_can_go_on_from() -> None:
    for step in (Step("more"), Step("", 1), Step(done=True), Step(CHAT, None), Step("x", 0.5, {"a": 2.0}, True)):
        assert stepped(step, ("a",)) is step


def test_a_question_is_its_prompt_and_is_done_with_the_answer() -> None:
    factory = SingleTurn(grader())
    prompt = Prompt("p", "p", (1,), CHAT)
    made = factory.make(prompt, 3)
    assert len(made) == 3
    assert made[0].reset({}, 0) is CHAT
    assert made[0].step({"role": "assistant", "content": "2"}) == Step(reward=None, done=True)
    assert (factory.names, factory.turns) == ((), 1)


def test_an_environments_components_stand_beside_its_reward() -> None:
    factory = Worlds()
    assert factory.names == ("environment", "turns")

    class Bare(EnvironmentFactory):
        def make(self, prompt: Any, n: int) -> Any:
            return []

    assert Bare(grader()).names == ("environment",)


def environment(completions: list[str], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def test_a_reward_function_cannot_have_the_environments_name() -> None:
    taken = Grader(Scorer(parse([environment]), process=False), "environment", 1.0, 8)
    with pytest.raises(UsageError, match="called 'environment'"):
        Worlds(of=taken)
    SingleTurn(taken)


def test_the_environment_that_contributors_are_shown_works() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(import random\n.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    (world,) = names["Guessing"](grader()).make(Prompt("p", "p", (1,), "guess"), 1)
    assert observed(world.reset({"prompt": "guess"}, 3)).content == "guess"
    assert not stepped(world.step({"role": "assistant", "content": "x"}), ()).done
    assert stepped(world.step({"role": "assistant", "content": "0123456789"}), ()) == Step("no, again", 1.0, done=True)
