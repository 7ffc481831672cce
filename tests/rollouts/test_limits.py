"""Where episodes end, and what their rollouts say of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cohort.engine.native.engine import NativeEngine
from cohort.environments import SingleTurn, Step
from cohort.rollouts.episode import Limits
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.runner import Runner
from cohort.types import Rollout
from tests.environments.worlds import Guess, Slowly, Worlds, grader
from tests.rollouts.test_runner import POLICY, SHORT, requests


class Answers:
    """Gives the same answer to everything.

    Args:
        step: the answer; or what makes it, of the turn's number.
    """

    def __init__(self, step: Any, first: Any = None) -> None:
        self.answer, self.first, self.turn = step, first, 0

    def reset(self, row: Any, seed: int) -> Any:
        return self.first or row["prompt"]

    def step(self, message: Any) -> Any:
        self.turn += 1
        return self.answer(self.turn) if callable(self.answer) else self.answer

    def close(self) -> None: ...


def run(kind: Any, *, most: int = 90, slots: int = 64, **limits: Any) -> list[Rollout]:
    worlds = kind if isinstance(kind, SingleTurn) else Worlds(kind)
    return Runner(POLICY, NativeEngine(POLICY, slots=slots), SHORT, worlds, limits=Limits(**limits)).run(
        requests(most=most)
    )


@pytest.mark.parametrize("slowly", [False, True])
def test_the_last_turn_is_answered_and_rewarded(slowly: bool) -> None:
    def kind(k: int) -> Any:
        made = Answers(lambda turn: Step(f"turn {turn}", float(turn)))
        return Slowly(made) if slowly else made

    for rollout in run(kind, turns=2, most=200):
        if rollout.end == "tokens":  # a turn that did not come to its end
            continue
        assert (rollout.end, rollout.status, len(rollout.turns)) == ("turns", "truncated", 2)
        assert [turn.reward for turn in rollout.turns] == [1.0, 2.0]
        assert rollout.components["environment"] == 3.0
        # Nothing further is shown.
        assert [len(turn.messages) for turn in rollout.turns] == [2, 1]
        assert rollout.segments[-1].writer == "policy"


def test_a_turn_that_is_cut_ends_the_episode_unanswered() -> None:
    free, limited = run(lambda k: Guess(), most=60), run(lambda k: Guess(), most=60, turn_tokens=6)
    cut = [rollout for rollout in limited if rollout.end == "tokens"]
    assert cut
    for whole, rollout in zip(free, limited, strict=True):
        assert max(turn.end - turn.start for turn in rollout.turns) <= 6
        assert rollout.request.max_new_tokens == 60
        if rollout.end == "tokens" and len(rollout.turns) == 1:
            assert rollout.tokens == whole.tokens[:6]
            # Cut before anything was rewarded: worth nothing, rather than unknown.
            assert (rollout.components, rollout.status) == ({"environment": 0.0, "turns": None}, "truncated")


def test_time_is_looked_at_when_an_answer_comes() -> None:
    def kind(k: int) -> Any:
        return Answers(lambda turn: (time.sleep(0.03 if k == 0 else 0.0), Step("more", 1.0))[1])

    late, *others = run(kind, seconds=0.02, slots=1)
    assert (late.end, late.status) == ("seconds", "truncated")
    assert late.components["environment"] == 1.0
    assert {rollout.end for rollout in others} <= {"seconds", "tokens"}
    assert all(rollout.end == "tokens" for rollout in run(kind, seconds=60.0))


@pytest.mark.parametrize(
    ("step", "end", "status"),
    [
        (Step(done=True), "done", "finished"),
        (Step("not shown", done=True), "done", "finished"),
        (Step(done=True, end="unparseable"), "unparseable", "finished"),
        (Step(done=True, end="turns"), "turns", "truncated"),
        (Step("x" * 200_000), "tokens", "truncated"),
        (Step("x" * 300), "tokens", "truncated"),
        (Step(done=True, end="tired"), "failed", "failed"),  # type: ignore[arg-type]
        (Step("\ud800"), "failed", "failed"),
        (Step("more", reward=float("nan")), "failed", "failed"),
        (Step("more", reward="much"), "failed", "failed"),  # type: ignore[arg-type]
        (Step("more", components={"style": 1.0}), "failed", "failed"),
        (Step(), "failed", "failed"),
    ],
)
def test_why_an_episode_ended(step: Step, end: str, status: str) -> None:
    found = run(lambda k: Answers(step), most=60)
    answered = [rollout for rollout in found if rollout.end != "tokens" or end == "tokens"]
    assert answered
    for rollout in answered:
        assert (rollout.end, rollout.status, bool(rollout.error)) == (end, status, end == "failed")
        assert (rollout.components["environment"] is None) == (end == "failed")
        # A checkpoint keeps it.
        assert restored(stored(rollout), rollout.prompt).end == end


def test_a_long_answer_is_not_even_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = type(POLICY.renderer)._ids
    monkeypatch.setattr(
        type(POLICY.renderer), "_ids", lambda self, text: (asked.append(len(text)), real(self, text))[1]
    )
    assert {rollout.end for rollout in run(lambda k: Answers(Step("x" * 3_000_000)))} == {"tokens"}
    assert max(asked) < 1000
    assert {rollout.end for rollout in run(lambda k: Answers(Step(), "x" * 3_000_000))} == {"failed"}
    assert max(asked) < 1000


def test_what_is_shown_first_stands_in_the_rollout() -> None:
    shown = [{"role": "user", "content": "another task"}]
    assert {rollout.opening for rollout in run(lambda k: Answers(Step(done=True)))} == {()}
    for rollout in run(lambda k: Answers(Step(done=True), shown)):
        assert rollout.opening == tuple(shown)
        assert restored(stored(rollout), rollout.prompt).opening == tuple(shown)


def test_a_question_is_no_episode() -> None:
    assert {rollout.end for rollout in run(SingleTurn(grader()), most=12)} == {""}


def test_seconds_without_anything_to_draw_are_counted() -> None:
    worlds = Worlds(lambda k: Slowly(Answers(Step(done=True)), wait))
    runner = Runner(POLICY, NativeEngine(POLICY), SHORT, worlds)
    runner.run(requests(2))
    assert 0.04 < runner.seconds["idle"] < 1.0


async def wait() -> None:
    import asyncio

    # The clock starts a little later than these do.
    await asyncio.sleep(0.03)
