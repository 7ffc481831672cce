"""Rooms: a policy asks, geometry checks, the policy answers."""

from __future__ import annotations

import pytest

from cohort.data.generators.spatial.tasks import TASKS
from cohort.environments import Observation, Step
from cohort.environments.rooms import QUESTIONER, SOLVER, Rooms, graded, rooms

SIZE = "<observation>The room is wide and deep.</observation><question>How large is the floor of the room?</question>"


def begun(task: str, answers: int = 2) -> Rooms:
    made = Rooms(answers=answers)
    (row,) = (row for row in rooms(range(1)) if row["task"] == task)
    first = made.reset(row, 0)
    assert (first.agent, first.content) == (QUESTIONER, row["prompt"])
    return made


def say(made: Rooms, text: str) -> Step:
    return made.step({"role": "assistant", "content": text})


def asked(step: Step) -> Observation:
    assert isinstance(step.observation, Observation)
    return step.observation


def test_a_valid_question_is_answered_as_often_as_asked_for_each_time_anew() -> None:
    made = begun("room_size")
    first = say(made, SIZE)
    assert (first.reward, first.components, first.done) == (1.0, {}, False)
    assert "How large is the floor of the room?" in str(asked(first).content)
    area = made.scene.size[0] * made.scene.size[1]
    second = say(made, f"<answer>{area:.2f}</answer>")
    key = second.components["question"]
    assert second.reward == pytest.approx(1.0)
    assert second.components == {"question": key, "valid": 1.0, "solved": 1.0}
    assert [(asked(s).agent, asked(s).conversation) for s in (first, second)] == [
        (SOLVER, "answer 1"),
        (SOLVER, "answer 2"),
    ]
    last = say(made, "about twice as much")
    assert (last.reward, last.components["solved"], last.done) == (0.0, 0.0, True)
    assert last.components["question"] == key > 0


def test_questions_are_worth_what_they_are() -> None:
    for task, text, earned in (
        ("room_size", "How large?", 0.0),
        ("room_size", SIZE + SIZE, -1.0),
        ("room_size", SIZE.replace("wide", "<b>wide</b>"), -1.0),
        ("room_size", "Well: " + SIZE, 0.0),
        ("room_size", "<question>How large is the floor?</question>", 0.05),
        ("absolute_distance", "<observation>a</observation><question>How far is the moon?</question>", 0.1),
    ):
        step = say(begun(task), text)
        assert step.reward == pytest.approx(earned), text
        assert step.done is (text == "How large?")


def test_who_explains_an_invalid_question_is_rewarded() -> None:
    made = begun("absolute_distance")
    say(made, "<observation>a</observation><question>How far is the red chair from the red chair?</question>")
    assert made.reason
    said = say(made, made.reason)
    assert said.reward == pytest.approx(0.9)
    assert said.components["valid"] == said.components["solved"] == 0.0
    assert say(made, "<answer>3</answer>").reward == pytest.approx(0.0)


def test_questions_that_mean_the_same_share_a_number() -> None:
    keys = []
    names = list(begun("absolute_distance").scene.named)[:2]
    for text in (
        "How far is the {} from the {}?",
        "The {} and the {}: how far apart?",
        "How far is the {1} from the {0}?",
    ):
        made = begun("absolute_distance")
        step = say(made, f"<question>{text.format(*names)}</question>")
        assert not step.done
        keys.append(say(made, "<answer>1</answer>").components["question"])
    assert keys[0] == keys[1] != keys[2]


def test_rows_have_every_kind_of_question_and_others_are_held_out() -> None:
    found = rooms(range(3))
    assert {row["task"] for row in found} == {*TASKS}
    assert {row["room"] for row in found} == {0, 1, 2}
    assert not {row["room"] for row in Rooms.rows()} & {row["room"] for row in Rooms.held_out_rows()}
    with pytest.raises(ValueError, match="answered once at least"):
        Rooms(answers=0)
    assert [graded(share) for share in (0.0, 0.29, 0.5, 0.9, 1.0)] == [0.0, 0.0, 0.3, 0.6, 1.0]
