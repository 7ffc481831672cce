"""Rewards that count words, and verdicts on the steps of a solution."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.data.presets import apply_preset
from cohort.data.rows import Row
from cohort.errors import UsageError
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
    for part in ("1 + 1?", "<step_0>\none and one\n</step_0>", "<step_1>\nis three\n</step_1>", "\\boxed{}"):
        assert part in row["prompt"]
    (given,), _ = apply_preset([Row({**held, "reference": "2"}, "row 1")])
    assert "Its answer is 2." in given["prompt"]
    parse(["first-error"])[0].check_rows([("rows, row 1", row)])
