"""Rewards of rollouts: of reward functions, of environments, and of both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cohort.rewards.composition import compose
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from cohort.types import Prompt, Request, Rollout, Turn
from tests.helpers import rollout_of

SEEN: list[Any] = []


def said(completions: list[Any], **_: Any) -> list[float]:
    """Notes what it is shown."""
    SEEN.extend(completions)
    return [2.0] * len(completions)


@pytest.fixture
def grader() -> Iterator[Grader]:
    SEEN.clear()
    made = Grader(Scorer(parse([said]), process=False), "said", 1.0, 8)
    yield made
    made.scorer.close()


def rollout(source: Any = "q", **changes: Any) -> Rollout:
    prompt = Prompt("q", "q", (1,), source, where="data.jsonl, line 3")
    return rollout_of(Request(prompt, (1,), 0, 8), [5, 6], **changes)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TURNS = (
    Turn(0, 1, (message("assistant", "5"), message("user", "larger")), -0.25),
    Turn(1, 2, (message("assistant", "6"),), 1.0),
)


def test_what_the_environment_gave_is_added(grader: Grader) -> None:
    own = {"environment": 0.75, "turns": 2.0}
    (found,) = grader.grade([rollout(text="5", turns=TURNS, components=own)])
    assert found.components == {"said": 2.0, **own}
    # Parts of the environment's reward are in it already.
    assert found.reward == 2.75
    assert found.accuracy == 1.0
    # Grading again changes nothing.
    assert grader.grade([found]) == [found]


def test_gates_ranges_and_schedules_say_what_counts() -> None:
    def right(completions: list[Any]) -> list[float | None]:
        return [None if c == "?" else float("5" in c) for c in completions]

    def form(completions: list[Any]) -> list[float]:
        return [float(c.startswith("=")) for c in completions]

    def short(completions: list[Any]) -> list[float]:
        return [10.0 - len(c) for c in completions]

    specs = parse([right, (0.0, form), short])
    weights = {**{spec.name: spec.weight for spec in specs}, "environment": 1.0}
    composition = compose(
        weights,
        gates=["short if right", "right if form else -1", "environment if form"],
        clips=["short ..4"],
        schedules=["short 0:0 10:1"],
    )
    grader = Grader(Scorer(specs, process="here"), "right", 1.0, 8, composition=composition)
    grader.state.stand(5, 20, per_step=1, prompts=1)
    own = {"environment": 0.5}
    found = grader.grade([rollout(text=text, components=own) for text in ("=5", "5", "=6", "?")])
    assert [r.components for r in found] == [
        {"right": 1.0, "form": 1.0, "short": 4.0, "environment": 0.5},
        {"right": -1.0, "form": 0.0, "short": 0.0, "environment": 0.0},
        {"right": 0.0, "form": 1.0, "short": 0.0, "environment": 0.5},
        {"right": None, "form": 0.0, "short": None, "environment": 0.0},
    ]
    assert [r.reward for r in found] == [1.0 + 0.5 * 4.0 + 0.5, -1.0, 0.5, 0.0]
    # What is correct is what the verifier says.
    assert [r.accuracy for r in found[:3]] == [1.0, 1.0, 0.0]
    assert math.isnan(found[3].accuracy)
    assert [r.logged for r in found[:2]] == [
        {"raw/short": 8.0, "raw/right": 1.0, "raw/environment": 0.5},
        {"raw/short": 9.0, "raw/right": 1.0, "raw/environment": 0.5},
    ]
    assert grader.take_metrics() == {
        "raw/right": pytest.approx(2 / 3),
        "raw/short": 8.5,
        "raw/environment": 0.5,
        "closed/right": 0.25,
        "closed/short": 0.5,
        "closed/environment": 0.5,
    }
    # Grading again changes nothing: what the environment gave is not lost behind its gate.
    assert [r.reward for r in grader.grade(found)] == [r.reward for r in found]
    assert grader.grade(found)[1].logged["raw/environment"] == 0.5
    # The weights are those of the step; where there are no steps, those at the end.
    assert [grader.weight("short", step) for step in (0, 5, None)] == [0.0, 0.5, 1.0]
    grader.state.stand(0, 0, per_step=1, prompts=1)
    assert grader.grade(found[:1])[0].reward == 5.5


def test_without_reward_functions_the_environment_says_what_is_right() -> None:
    grader = Grader(Scorer([]), "", 1.0, 8)
    right, wrong = (rollout(components={"environment": value}) for value in (1.0, 0.5))
    assert [(r.reward, r.accuracy) for r in grader.grade([right, wrong])] == [(1.0, 1.0), (0.5, 0.0)]
    (nothing,) = grader.grade([rollout()])
    assert math.isnan(nothing.reward)
    assert math.isnan(nothing.accuracy)


def test_reward_functions_see_a_conversation_whole(grader: Grader) -> None:
    chat = [message("user", "which?")]
    one = rollout(chat, text="5", turns=TURNS[1:])
    grader.grade([rollout(chat, text="5\n\nlarger\n\n6", turns=TURNS), one, replace(one, turns=()), rollout(text="x")])
    assert [
        [message("assistant", "5"), message("user", "larger"), message("assistant", "6")],
        [message("assistant", "5")],
        [message("assistant", "5")],
        "x",
    ] == SEEN


def test_episodes_that_failed_are_not_shown_and_are_said_once(grader: Grader) -> None:
    failed = rollout(status="failed", error="no server", components={"environment": None})
    found = grader.grade([failed, rollout(text="a"), failed.replace(error="no disk")])
    assert SEEN == ["a"]
    assert [(r.failed, r.scored) for r in found] == [(True, False), (False, True), (True, False)]
    assert found[0].components == {"said": None, "environment": None}
    assert grader.failures == ["data.jsonl, line 3: no server", "data.jsonl, line 3: no disk"]
    grader.grade(found)
    assert len(grader.failures) == 2
