"""Rewards that count words, and verdicts on the steps of a solution."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cohort.data.presets import apply_preset
from cohort.data.rows import Row
from cohort.errors import UsageError
from cohort.rewards.judges.forms import Unread
from cohort.rewards.judges.prompts import load_prompt, values_of
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse


def test_a_verdict_is_worth_more_the_nearer_it_is() -> None:
    said = [
        "The error is in \\boxed{2}",
        "\\boxed{1}",
        "\\boxed{-1}",
        "\\boxed{4}",
        "none",
        "<think>2</think> \\boxed{ 2 }",
    ]
    columns: dict[str, list[Any]] = {"answer": ["2"] * 6, "steps": [["a", "b", "c", "d"]] * 6}
    with Scorer(parse(["first-error"])) as scorer:
        assert scorer.grade([""] * 6, said, None, columns).components["first-error"] == [1, 0.75, -1, -1, -1, 1]
        columns["answer"] = [-1] * 6
        assert scorer.grade([""] * 6, said, None, columns).components["first-error"] == [-1, -1, 1, -1, -1, -1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": 0}, "reads the column 'steps'"),
        ({"answer": 0, "steps": "one text"}, "must be a list of a solution's steps"),
        ({"answer": 2, "steps": ["a", "b"]}, "the first wrong step, 0 to 1, or -1"),
        ({"answer": "none", "steps": ["a", "b"]}, "the first wrong step, 0 to 1, or -1"),
        ({"answer": True, "steps": ["a", "b"]}, "the first wrong step, 0 to 1, or -1"),
    ],
)
def test_rows_that_no_verdict_fits_are_refused(row: dict[str, Any], says: str) -> None:
    (spec,) = parse(["first-error"])
    with pytest.raises(UsageError, match=says):
        spec.check_rows([("rows, line 1", row)])


def test_solutions_with_a_known_first_error_become_prompts() -> None:
    held = {"id": "gsm8k-0", "problem": "1 + 1?", "steps": ["one and one", "is three"], "label": 1}
    (row,), name = apply_preset([Row({**held, "final_answer_correct": False}, "row 1")])
    assert name == "ProcessBench"
    assert row["answer"] == "1"
    parse(["first-error"])[0].check_rows([("rows, row 1", row)])
    assert "Right answer:\nnot known" in row["prompt"]
    (given,), _ = apply_preset([Row({**held, "reference": "2"}, "row 1")])
    # A judge that was trained on such rows is asked in the same words, but for the line around what it judges.
    prompt = load_prompt("flawed")
    shown = values_of("one and one\n\nis three", prompt.template_fields)
    assert shown is not None
    (asked,) = prompt.question({**shown, "prompt": "1 + 1?", "answer": "2"})
    marks = [re.search(r"===== \w{12} =====", text)[0] for text in (asked["content"], given["prompt"])]  # type: ignore[index]
    assert asked["content"].replace(marks[0], marks[1]) == given["prompt"]


@pytest.mark.parametrize(
    ("reply", "flawed"),
    [("\\boxed{-1}", 0), ("so \\boxed{ 2 }", 1), ("<think>\\boxed{-1}</think>\\boxed{0}", 1), ("none", None)],
)
def test_a_judge_says_whether_a_solution_is_flawed(reply: str, flawed: int | None) -> None:
    form = load_prompt("flawed").form
    if flawed is None:
        with pytest.raises(Unread, match="no number of a step"):
            form.read(reply, 0)
    else:
        assert form.read(reply, 0) == flawed
