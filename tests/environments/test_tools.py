"""Tools, and classes whose methods are tools: as TRL's users write them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.environments.spec import parse
from cohort.environments.tools import Several, ToolEnvironment, answers_calls, functions_of, schemas
from cohort.errors import UsageError
from cohort.rollouts.runner import Runner
from cohort.rollouts.sampler import StepSampler
from cohort.training.diagnostics import of_episodes, of_tools
from cohort.types import StepInfo
from tests.environments.scripted import Played, turns
from tests.helpers import tiny_policy

POLICY = tiny_policy()
POLICY.renderer.context_length = 4096
ROW = {"prompt": [{"role": "user", "content": "2*3=?"}]}


def multiply(a: int, b: int) -> int:
    """Multiplies two integers.

    Args:
        a: The first integer.
        b: The second integer.

    Returns:
        The product of the two integers.
    """
    return a * b


async def slow_add(a: int, b: int) -> int:
    """Adds two integers.

    Args:
        a: The first integer.
        b: The second integer.
    """
    await asyncio.sleep(0.01)
    if a < 0:
        raise ValueError("a is negative")
    return a + b


FILE = '''
import threading

from cohort.environments import Step

SHARED = []

def divide(a: int, b: int) -> float:
    """Divides.

    Args:
        a: what is divided.
        b: by what.
    """
    return a / b

def half(a: int) -> float:
    """Halves.

    Args:
        a: what is halved.
    """
    return a / 2

class Counter:
    """Counts; TRL's own example."""

    def __init__(self):
        self.lock = threading.Lock()

    def reset(self, **kwargs) -> str | None:
        self.counter, self.goal = 0, kwargs["goal"]
        self.columns = sorted(kwargs)
        return f" Count to {self.goal}."

    def increment(self, step: int) -> int:
        """Increment the counter.

        Args:
            step: Value to add.
        """
        self.counter += step
        return self.counter

    def _private(self):
        return 0

    def reached(self) -> bool:
        """Whether the counter is at its goal."""
        return self.counter == self.goal

class Paid(Counter):
    def reset(self, goal: int, seed: int) -> None:
        self.counter, self.goal, self.seed = 0, goal, seed

    def get_reward(self) -> float:
        return float(self.counter == self.goal)

class Own:
    def reset(self, row, seed):
        return None

    def step(self, message):
        return Step(reward=0.5, done=True)

def reached(completions, environments, **columns):
    answered = [completion[-1]["role"] == "assistant" for completion in completions]
    return [float(e.counter == e.goal and said) for e, said in zip(environments, answered)]

def seen(environments, completions):
    return [None if e is None else float(len(getattr(e, "columns", []))) for e in environments]
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tools") / "mine.py"
    path.write_text(FILE)
    return str(path)


def told(rollout: Any) -> list[tuple[str, str, str]]:
    return [(m["role"], m.get("name", ""), m["content"]) for turn in rollout.turns for m in turn.messages]


# tools ----------------------------------------------------------------------------------------------------------------


def test_calls_are_answered_in_their_order_and_a_turn_without_ends_the_episode() -> None:
    with Played(tools=[multiply, slow_add]) as played:
        both = "Both. <call>slow_add(1, 2)</call><call>multiply(a=2, b=3)</call>"
        (rollout,) = played.play(POLICY, turns(both, "It is 6."), ROW)
    assert told(rollout) == [
        ("assistant", "", "Both."),
        ("tool", "slow_add", "3"),
        ("tool", "multiply", "6"),
        ("assistant", "", "It is 6."),
    ]
    assert (rollout.status, rollout.end) == ("finished", "done")
    calls = rollout.turns[0].messages[0]["tool_calls"]
    assert [each["id"] for each in calls] == [m["tool_call_id"] for m in rollout.turns[0].messages[1:]]
    # The policy's words stay whole in the text, and its tokens are those that were drawn.
    assert rollout.text == f"{both}\n\n3\n\n6\n\nIt is 6."
    answer = POLICY.renderer.whole(rollout.segments[1].actions)
    assert answer == "<|user|><result>3</result>\n<result>6</result><|assistant|>"
    assert POLICY.renderer.decode(rollout.segments[0].actions) == both


def test_what_goes_wrong_in_a_call_is_told_and_the_episode_goes_on(file: str) -> None:
    said = [
        "<call>divide(1, 0)</call>",
        "<call>divide(1)</call>",
        "<call>solve(x=1)</call>",
        "<call>half(3</call><call>half(3)</call>",
        "<call>slow_add(-1, 2)</call>",
        "No.",
    ]
    with Played(tools=[f"{file}:divide, half", slow_add]) as played:
        (rollout,) = played.play(POLICY, turns(*said), ROW, most=900)
    results = [m for turn in rollout.turns for m in turn.messages if m["role"] == "tool"]
    assert [m["content"] for m in results[:3]] == [
        "{'error': 'division by zero'}",
        "{'error': \"divide() missing 1 required positional argument: 'b'\"}",
        "{'error': 'Tool solve not found.'}",
    ]
    assert results[3]["content"] == "1.5"
    assert "a call is written name(argument=value, ...): '<call>half(3</call>'" in results[4]["content"]
    assert results[5]["content"] == "{'error': 'a is negative'}"
    assert [m.get("failed", False) for m in results] == [True, True, True, False, True, True]
    assert rollout.end == "done"
    # Of six calls four failed, and one could not be read.
    assert of_episodes([rollout])["tools/calls_mean"] == 6.0
    assert of_tools([rollout], 1) == {"tools/calls_mean": 6.0, "tools/failed": 4 / 6, "tools/unparseable": 1 / 6}
    assert of_tools([rollout.replace(turns=())], 1) == dict.fromkeys(of_tools([rollout], 1), 0.0)
    bare = rollout.replace(turns=(), request=replace(rollout.request, prompt=replace(rollout.prompt, tools=())))
    assert of_tools([bare], 1) == {}


def test_turns_whose_calls_are_answered_can_be_limited() -> None:
    call = "<call>multiply(2, 3)</call>"
    with Played(tools=[multiply], rounds=1) as played:
        (rollout,) = played.play(POLICY, turns(call, call), ROW)
    assert (rollout.status, rollout.end) == ("truncated", "turns")
    assert [m["role"] for turn in rollout.turns for m in turn.messages] == ["assistant", "tool", "assistant"]
    assert "tool_calls" in rollout.turns[-1].messages[0]


def test_a_cut_turn_calls_nothing() -> None:
    with Played(tools=[multiply]) as played:
        (rollout,) = played.play(POLICY, turns("<call>multiply(2, 3)</call>"), ROW, most=27)
    assert (rollout.end, len(rollout.turns)) == ("tokens", 1)
    assert rollout.turns[0].messages == ({"role": "assistant", "content": "<call>multiply(2, 3)</call>"},)


def test_schemas_are_made_of_type_hints_and_docstrings() -> None:
    first, second = schemas([multiply, slow_add])
    assert first["function"]["name"] == "multiply"
    assert first["function"]["parameters"]["properties"]["a"] == {
        "type": "integer",
        "description": "The first integer.",
    }
    assert second["function"]["parameters"]["required"] == ["a", "b"]

    def bare(a):  # type: ignore[no-untyped-def]
        return a

    with pytest.raises(UsageError, match=r"tool bare: its schema cannot be made .* a type hint for every argument"):
        schemas([bare])


def test_tools_that_cannot_be_are_refused(file: str, tmp_path: Path) -> None:
    for tool, said in (
        ("mine.py", r"write path/to/file\.py:function"),
        (f"{file}:", r"write path/to/file\.py:function"),
        (f"{file}:third", r"has no function 'third' \(it has: divide, half"),
        (f"{tmp_path}/none.py:f", "there is no file"),
    ):
        with pytest.raises(UsageError, match=said):
            functions_of([tool])
    with pytest.raises(UsageError, match="there are two tools of the name multiply"):
        ToolEnvironment([multiply, multiply])
    with (
        pytest.raises(UsageError, match="has a step of its own, and takes no tools"),
        Played(f"{file}:Own", [multiply]),
    ):
        pass


# classes whose methods are tools ----------------------------------------------------------------------------------------


def test_a_class_of_trls_runs_unchanged(file: str) -> None:
    with Played(f"{file}:Counter", rewards=[f"{file}:reached", f"{file}:seen"], apart=True) as played:
        assert [each["function"]["name"] for each in played.offer.tools[""]] == ["increment", "reached"]
        says = turns("<call>increment(step=2)</call>", "<call>increment(3)</call>", "Done.")
        done, missed = played.play(POLICY, says, {**ROW, "goal": 5}, {**ROW, "goal": 6})
    assert [m[2] for m in told(done)] == ["", "2", "", "5", "Done."]
    assert done.opening[-1]["content"] == "2*3=? Count to 5."
    assert "2*3=? Count to 5." in POLICY.renderer.whole(done.request.context.tokens)
    # The reward function had the environment at its end, but for what cannot be sent, and reset all columns.
    assert [done.components, missed.components] == [{"reached": 1.0, "seen": 2.0}, {"reached": 0.0, "seen": 2.0}]
    assert [done.reward, missed.reward] == [3.0, 2.0]
    assert done.environment is None


def test_what_is_graded_twice_meets_its_environment_twice(file: str) -> None:
    """As the leaves of a tree do: in the sampling axis, and when all is drawn."""
    with Played(f"{file}:Counter", rewards=[f"{file}:reached"], apart=True) as played:
        (rollout,) = played.play(POLICY, turns("<call>increment(5)</call>", "Done."), {**ROW, "goal": 5}, graded=False)
        runner = Runner(POLICY, NativeEngine(POLICY), Sampling(), played.factory)
        step = StepSampler(runner, lambda asked, *, alone=False: [rollout], 64, None, seed=3)

        class Graded:
            info = StepInfo()

            def sampling(self, requests: Any, sampler: Any) -> Any:
                return sampler.grade(sampler.generate(requests))

        method: Any = Graded()
        (found,) = step.sampler(method, torch.Generator()).draw([rollout.request])
    assert found.components == {"reached": 1.0}
    assert found.environment is None


def test_an_environment_can_own_the_reward_also_where_a_limit_ends_the_episode(file: str) -> None:
    says = turns("<call>increment(5)</call>", "I go on and on.")
    with Played(f"{file}:Paid") as played:
        assert played.offer.components == ("Paid",)
        (done,) = played.play(POLICY, says, {**ROW, "goal": 5})
        (cut,) = played.play(POLICY, says, {**ROW, "goal": 5}, most=len(done.tokens) - 2)
        (lost,) = played.play(POLICY, says, {**ROW, "goal": 5}, most=5)
        (failed,) = played.play(POLICY, says, ROW)
    assert done.components == {"environment": 1.0, "Paid": 1.0}
    assert (cut.end, cut.components) == ("tokens", {"environment": 1.0, "Paid": 1.0})
    assert (lost.end, lost.components) == ("tokens", {"environment": 0.0, "Paid": 0.0})
    assert failed.failed
    assert "goal" in failed.error


def test_a_row_names_its_environment_among_several(file: str) -> None:
    several = f"count={file}:Counter,pay={file}:Paid,own={file}:Own"
    with Played(several, rewards=[f"{file}:seen"], apart=True) as played:
        assert {name: len(tools) for name, tools in played.offer.tools.items()} == {"count": 2, "pay": 2, "own": 0}
        rows = [{**ROW, "goal": 5, "environment": name} for name in ("count", "own", "other")]
        says = turns("<call>increment(5)</call>", "Done.")
        count, own = played.play(POLICY, says, *rows[:2])
        with pytest.raises(UsageError, match="'environment' names one of count, pay, own, but holds 'other'"):
            played.play(POLICY, turns("Done."), rows[2])
    # The column that names it is not given to reset.
    assert count.components["seen"] == 2.0
    assert own.components == {"environment": 0.5, "Paid": None, "seen": 0.0}
    assert own.turns[0].messages[0]["content"] == "<call>increment(5)</call>"
    with pytest.raises(ValueError, match="holds 'other': there are own"):
        Several({"own": object}).reset(rows[2], 0)
    assert set(parse({"a": f"{file}:Own"}).several) == {"a"}


def test_a_class_with_tools_is_told_from_one_with_steps() -> None:
    class Steps:
        def reset(self, row: Any, seed: int) -> str: ...  # type: ignore[empty-body]
        def step(self, message: Any) -> None: ...

    class Calls:
        def reset(self, **row: Any) -> None: ...
        def guess(self, word: str) -> None: ...

    class StepIsATool:
        def reset(self, **row: Any) -> None: ...
        def step(self, action: str) -> None: ...

    assert [answers_calls(each) for each in (Steps, Steps(), Calls, Calls(), StepIsATool)] == [
        False,
        False,
        True,
        True,
        True,
    ]
