"""Answers about space, judged by the kind of question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.data.generators.spatial.tasks import TASKS
from cohort.data.generators.table import GENERATORS
from cohort.errors import UsageError
from cohort.rewards.builtin import KINDS
from cohort.rewards.spatial import MEASURED, SIDES, accuracy, questioner_reward, solver_reward, spatial


@pytest.mark.parametrize(
    ("task", "said", "truth", "value"),
    [
        ("object_counting", "There are 3.", "4", 0.3),
        ("room_size", "<answer>20 square metres</answer>", "20.00", 1.0),
        ("room_size", "<answer>none</answer>", "20.00", 0.0),
        ("relative_distance", "<answer>The red chair.</answer>", "red chair", 1.0),
        ("relative_distance", "<answer>red chair or blue chair</answer>", "red chair", 0.0),
        ("elevation_cam_cam", "<answer>Same-Level</answer>", "same level", 1.0),
        ("relative_direction", "<answer>left and front</answer>", "front, left", 1.0),
        ("relative_direction", "<answer>front</answer>", "front, left", 0.0),
        ("direction_obj_obj", "<answer>left, above</answer>", "left, above, behind", 1.0),
        ("direction_obj_obj", "<answer>left</answer>", "left, above, behind", 0.0),
        ("direction_obj_obj", "<answer>left</answer>", "left, above", 0.1),
        ("direction_obj_obj", "<answer>left, below</answer>", "left, above", 0.0),
        ("direction_obj_obj", "<answer>left, right, above, below, front, behind</answer>", "left, above", 0.0),
        ("motion_camera", "", "left", 0.0),
    ],
)
def test_each_kind_is_judged_in_its_own_way(task, said, truth, value):
    assert spatial([said], [truth], [task]) == [value]


def test_every_kind_of_question_is_judged_and_its_own_answer_is_right():
    for row in (task.row("text") for task in GENERATORS["spatial"].tasks(40, 0, {})):
        assert accuracy(row["task"], f"<answer>{row['answer']}</answer>", row["answer"]) == 1.0
        assert accuracy(row["task"], "<answer>-7.5, nowhere</answer>", row["answer"]) == 0.0
    assert {*MEASURED, *SIDES} < {*TASKS}
    assert spatial(["x"], [None], ["room_size"]) == [None]


def test_rows_of_other_data_are_refused_before_anything_is_drawn():
    kind = KINDS["spatial"]
    with pytest.raises(UsageError, match="use it with rows of `cohort data spatial`"):
        kind.check_rows("spatial", "", [("x.jsonl, line 1", {"answer": "3", "task": "sums"})])
    with pytest.raises(UsageError, match="reads the column 'task'"):
        kind.check_rows("spatial", "", [("x.jsonl, line 1", {"answer": "3"})])


FORMS, GRADES = st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.3, 0.6, 1.0])


@given(FORMS, FORMS, st.none() | GRADES, st.booleans(), st.integers(0, 3), st.booleans())
def test_what_a_question_earns_lies_between_minus_one_and_one(form, worth, seen, valid, questions, tags):
    value = questioner_reward(form, worth, seen, valid=valid, questions=questions, tags=tags)
    assert -1 <= value <= 1
    assert questioner_reward(1.0, 1.0, 1.0, valid=True) == 1


@given(GRADES, st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_what_an_answer_earns_lies_between_minus_one_and_one(content, valid, answers, others):
    assert -1 <= solver_reward(content, valid=valid, answers=answers, others=others) <= 1
