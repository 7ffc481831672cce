"""Environments of verifiers, played by a policy that is a list of answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cohort.environments.adapters.verifiers import ids, load
from cohort.environments.spec import Maker
from cohort.errors import UsageError
from tests.environments.adapters import needs, say

pytestmark = needs("verifiers")


@pytest.fixture(autouse=True)
def tasksets(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(__file__).with_name("tasksets"))
    monkeypatch.syspath_prepend(folder)
    # Its tool servers are processes of their own.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))


def played(maker: Maker, play: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What a play comes to, in a loop that ends with it."""

    async def main() -> Any:
        try:
            return await asyncio.wait_for(play(), 60)
        finally:
            await maker.make().of.close()

    return asyncio.run(main())


def test_a_task_is_answered_and_rewarded_by_its_rubric() -> None:
    maker = load("cohort-sums", {"count": 3})
    rows = maker.rows(False)
    assert len(rows) == 3
    assert rows[2]["answer"] == "4"
    assert maker.rows(True) is None
    assert maker.components == ("right", "short", "length")

    async def play() -> None:
        right, wrong = maker.make(), maker.make()
        seen = await asyncio.gather(right.reset(rows[2], 0), wrong.reset(rows[2], 0))
        # What is shown is the row's prompt, so that guidance in it would stay.
        assert seen[0].content == rows[2]["prompt"]
        assert (seen[0].agent, seen[0].fresh) == ("", False)
        steps = await asyncio.gather(right.step(say("it is: 4!")), wrong.step(say("five")))
        assert [step.reward for step in steps] == [2.0, 0.5]
        assert steps[0].components == {"right": 2.0, "short": 0.0, "length": 9.0}
        assert all(step.done for step in steps)
        await asyncio.gather(right.close(), wrong.close())

    played(maker, play)


def test_agents_have_conversations_and_rewards_of_their_own() -> None:
    maker = load("cohort-duel", {"size": 2})
    rows = maker.rows(False)
    assert [row["prompt"] for row in rows] == ["duel 0", "duel 1"]

    async def play() -> None:
        episode = maker.make()
        first = await episode.reset(rows[1], 0)
        assert (first.agent, first.content[-1]["content"]) == ("thinker", "Think of a digit.")
        guess = (await episode.step(say("7"))).observation
        assert (guess.agent, [m["content"] for m in guess.content]) == ("guesser", ["Guess the digit."])
        told = (await episode.step(say("5"))).observation
        assert (told.agent, [m["content"] for m in told.content]) == ("guesser", ["larger"])
        over = await episode.step(say("7"))
        assert (over.done, over.reward, over.rewards) == (True, 1.0, {"thinker": 0.0})
        await episode.close()

    played(maker, play)


def test_a_limit_of_the_environment_s_own_ends_the_episode_with_its_rewards() -> None:
    maker = load("cohort-duel", {"guesser.max_turns": 1})

    async def play() -> Any:
        episode = maker.make()
        await episode.reset({"task": 0}, 0)
        await episode.step(say("7"))
        return await episode.step(say("5"))

    over = played(maker, play)
    assert (over.done, over.reward, over.rewards) == (True, 0.0, {"thinker": 1.0})


def test_many_episodes_begin_at_once() -> None:
    maker = load("cohort-duel", {})

    async def play() -> None:
        episodes = [maker.make() for _ in range(24)]
        seen = await asyncio.gather(*(e.reset({"task": 50 * (i % 8)}, i) for i, e in enumerate(episodes)))
        assert {each.content[-1]["content"] for each in seen} == {"Think of a digit."}
        steps = await asyncio.gather(*(e.step(say("5")) for e in episodes))
        assert {step.observation.agent for step in steps} == {"guesser"}
        await asyncio.gather(*(e.close() for e in episodes))

    played(maker, play)


def test_an_environment_that_fails_says_why_and_one_given_up_ends() -> None:
    maker = load("cohort-duel", {})

    async def play() -> None:
        failing, left = maker.make(), maker.make()
        await failing.reset({"task": 0}, 0)
        await left.reset({"task": 0}, 0)
        with pytest.raises(RuntimeError, match="this is no digit"):
            await failing.step(say("boom"))
        await failing.close()
        await left.close()
        assert left.running.done()
        with pytest.raises(UsageError, match="none at 5000"):
            await maker.make().reset({"task": 5000}, 0)

    played(maker, play)


def test_tools_of_a_taskset_are_offered_and_called() -> None:
    maker = load("cohort-tools", {})

    async def play() -> None:
        episode = maker.make()
        first = await episode.reset(maker.rows(False)[0], 0)
        (tool,) = first.tools
        name = tool["function"]["name"]
        assert name.endswith("look_up")
        calls = [
            {"function": {"name": name, "arguments": {"name": "Ada"}}},
            {"function": {"name": "nothing", "arguments": "{}"}},
            {"function": {"name": name, "arguments": "{broken"}},
        ]
        step = await episode.step(say("", tool_calls=calls))
        results = step.observation.content
        assert [result["role"] for result in results] == ["tool"] * 3
        assert results[0]["content"] == "1815"
        assert "no tool 'nothing'" in results[1]["content"]
        assert "invalid JSON" in results[2]["content"]
        over = await episode.step(say("It is 1815."))
        assert (over.done, over.reward) == (True, 1.0)

    played(maker, play)


def test_the_games_that_come_with_it_are_played() -> None:
    pytest.importorskip("textarena")
    with pytest.raises(UsageError, match=r"taskset\.game"):
        load("textarena", {})


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("no-such-taskset", {}, "'no-such-taskset' not found"),
        ("cohort-sums", {"cont": 3}, "taskset.cont"),
        ("cohort-sums", {"agent.max_turn": 3}, "agent.max_turn"),
        ("cohort-sums", {"agent.harness.id": "nobody"}, "harness 'nobody' not found"),
        ("cohort-sums", {"env": "nowhere"}, "environment 'nowhere' not found"),
        ("cohort-sums", {"count": 0}, "has 0 tasks"),
    ],
)
def test_what_is_wrong_is_said(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(name, options)


def test_what_can_be_named_is_listed() -> None:
    assert "textarena" in ids()
