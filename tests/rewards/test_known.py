"""The same row and completion is scored once, and nobody can tell from what comes of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.known import Known
from cohort.rewards.scorer import RewardError, Scorer, Scores
from cohort.rewards.spec import parse

SEEN: list[str] = []


def length(completions: list[str], level: list[int], log_extra: Any) -> list[float]:
    """Notes what it is shown, and logs of each completion."""
    SEEN.extend(completions)
    log_extra("upper", [c.upper() for c in completions])
    return [len(c) + each for c, each in zip(completions, level, strict=True)]


def counted(completions: list[str], **kwargs: Any) -> list[float]:
    """Logs a number of the call, which nothing in its signature says."""
    SEEN.extend(completions)
    kwargs["log_metric"]("shown", len(completions))
    return [1.0] * len(completions)


async def waits(completions: list[str]) -> list[float]:
    SEEN.extend(completions)
    return [float(len(c)) for c in completions]


def picky(completions: list[str]) -> list[float]:
    SEEN.extend(completions)
    return [1 / (c != "bad") for c in completions]


def stepped(completions: list[str], trainer_state: Any) -> list[float]:
    return [float(trainer_state.global_step)] * len(completions)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def scored(scorer: Scorer, completions: list[str], **columns: list[Any]) -> Scores:
    columns = {"level": [0] * len(completions), **columns}
    return scorer.grade(["q"] * len(completions), completions, None, columns)


def test_each_pair_is_scored_once_a_run_and_logs_are_those_of_all() -> None:
    with Scorer(parse([length]), process="here", once=["length"]) as scorer:
        found = scored(scorer, ["a", "bb", "a", "a"], level=[0, 0, 0, 1])
        assert SEEN == ["a", "bb", "a"]
        assert found.components == {"length": [1.0, 2.0, 1.0, 2.0]}
        assert found.extra == {"upper": ["A", "BB", "A", "A"]}
        found = scored(scorer, ["bb", "ccc", "bb"])
        assert SEEN[3:] == ["ccc"]
        assert (found.components["length"], found.extra["upper"]) == ([2.0, 3.0, 2.0], ["BB", "CCC", "BB"])
        assert scored(scorer, ["a", "a"]).components["length"] == [1.0, 1.0]
        assert len(SEEN) == 4
        assert scored(scorer, []).components["length"] == []


def test_nothing_is_kept_of_functions_that_were_not_named() -> None:
    with Scorer(parse([length]), process="here") as scorer:
        scored(scorer, ["a", "a"])
        scored(scorer, ["a"])
        assert SEEN == ["a", "a", "a"]


def test_what_logs_metrics_sees_whole_batches() -> None:
    with Scorer(parse([counted]), process="here", once=["counted"]) as scorer:
        assert scored(scorer, ["a", "a", "b"]).metrics == {"shown": [3]}
        assert scored(scorer, ["a", "a"]).metrics == {"shown": [2]}
        assert scored(scorer, ["a", "b"]).metrics == {"shown": [2]}


def test_asynchronous_functions_are_kept_too() -> None:
    with Scorer(parse([waits, length]), process="here", once=["waits"]) as scorer:
        assert scored(scorer, ["aa", "aa"]).components == {"waits": [2.0, 2.0], "length": [2.0, 2.0]}
        assert SEEN.count("aa") == 3


def test_failures_are_those_of_the_rows() -> None:
    with Scorer(parse([picky]), process="here", once=["picky"], on_error="skip") as scorer:
        found = scored(scorer, ["good", "bad", "good", "bad"])
        assert found.components["picky"] == [1.0, None, 1.0, None]
        assert found.failed == {1, 3}
        # Nothing was kept of a call that failed.
        assert scored(scorer, ["good"]).components["picky"] == [1.0]
    with (
        Scorer(parse([picky]), process="here", once=["picky"]) as scorer,
        pytest.raises(RewardError, match="failed on row 2"),
    ):
        scored(scorer, ["good", "bad"])


@pytest.mark.parametrize(
    ("once", "says"),
    [
        (["stepped"], "asks for trainer_state"),
        (["lenght"], "reward_once names 'lenght', which is no reward of this run"),
    ],
)
def test_what_cannot_be_kept_is_refused(once: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Scorer(parse([stepped]), process="here", once=once)


def test_builtin_verifiers_give_the_same_with_and_without() -> None:
    rng = random.Random(0)
    rewards = ["math", "number", "exact", "text:partial", "conclusion", "tags:a", "set"]
    said = ["\\boxed{1/2}", "0.5", "the answer is 2", "<a>2</a>", "", "it is 1/2"]
    batches = [
        ([rng.choice(said) for _ in range(12)], {"answer": [rng.choice(["1/2", "2", 2, None]) for _ in range(12)]})
        for _ in range(4)
    ]
    with Scorer(parse(rewards), process="here") as scorer:
        kept = [scored(scorer, texts, **columns) for texts, columns in batches]
        assert len(scorer._known) == len(rewards)
    with Scorer(parse(rewards), process="here", once=None) as scorer:
        assert [scored(scorer, texts, **columns) for texts, columns in batches] == kept


def test_the_oldest_are_forgotten() -> None:
    known, asked = Known(most=2), []

    def ask(texts: list[str]) -> Any:
        def call(rows: Any) -> Any:
            asked.extend(texts[row] for row in rows)
            return {"values": [float(len(texts[row])) for row in rows], "extra": {}, "metrics": {}, "notes": []}

        return known.ask({"completions": texts}, len(texts), call)["values"]

    assert ask(["a", "bb", "ccc", "a"]) == [1.0, 2.0, 3.0, 1.0]
    assert ask(["ccc", "a"]) == [3.0, 1.0]
    assert asked == ["a", "bb", "ccc", "a"]
