"""A team that answers together."""

from __future__ import annotations

import random

import pytest

from cohort.environments import Observation, Step
from cohort.environments.team import Team, drop_out, vote


def play(team: Team, *said: str, seed: int = 0) -> tuple[list[Observation], Step]:
    seen = [team.reset({"prompt": "2 + 2", "answer": 4}, seed)]
    for text in said:
        step = team.step({"role": "assistant", "content": text})
        if step.done:
            return seen, step
        assert isinstance(step.observation, Observation)
        seen.append(step.observation)
    raise AssertionError("it did not end")


def test_agents_read_each_other_and_vote() -> None:
    seen, last = play(Team(("a", "b", "c"), rounds=2), "4", "it is 5", "5", "4", "5", "4")
    assert [each.agent for each in seen] == ["a", "b", "c", "a", "b", "c"]
    assert [each.content for each in seen[:3]] == ["2 + 2"] * 3
    assert seen[3].content == "b: 5; c: 5"
    assert seen[5].content == "a: 4; b: 5"
    # The vote is right; a kept the right answer, c came to it, b did not.
    assert last.rewards == {"a": 3.0, "b": 2.0, "c": 3.0}


def test_form_counts_and_one_that_answers_alone_does_not_collaborate() -> None:
    _, last = play(Team(("a", "b"), rounds=1), "4", "")
    assert last.rewards == {"a": 2.0, "b": 1.0}
    _, last = play(Team(("a",), rounds=2), "4", "4")
    assert last.rewards == {"a": 2.0}


def test_dropout_leaves_somebody_and_the_same_in_a_group() -> None:
    agents = ("a", "b", "c", "d")
    drawn = [drop_out(agents, 0.6, random.Random(seed)) for seed in range(200)]
    assert all(drawn)
    assert {len(each) for each in drawn} == {1, 2, 3, 4}
    assert drop_out(agents, 0.0, random.Random(1)) == list(agents)
    with pytest.raises(ValueError, match="leaves nobody"):
        drop_out(agents, 1.0, random.Random(1))
    first, second = Team(agents, dropout=0.5), Team(agents, dropout=0.5)
    for seed in range(20):
        first.reset({"prompt": "", "answer": ""}, seed)
        second.reset({"prompt": "", "answer": ""}, seed)
        assert first.active == second.active


def test_ties_go_to_the_answer_met_first() -> None:
    assert vote(["b", "a", "a", "b"]) == "b"
    with pytest.raises(ValueError, match="nobody"):
        vote([])
