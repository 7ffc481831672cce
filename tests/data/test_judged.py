"""Judged completions: the shapes in which they come, and rows that are none."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.data.judged import Judgements, read_judged
from cohort.data.prompts import PromptSpec
from cohort.errors import UsageError


def read(*rows: dict[str, Any], **how: Any) -> Judgements:
    return read_judged(list(rows), how.pop("spec", PromptSpec()), **how)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "q"),
        ({"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}, [user("q")]),
        # The prompt that both begin with, as in data sets of whole conversations.
        ({"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]}, [user("q")]),
        ({"chosen": "Human: q Assistant: good", "rejected": "Human: q Assistant: bad"}, "Human: q Assistant:"),
    ],
)
def test_pairs_come_in_every_shape_of_preference_data(row: dict[str, Any], prompt: Any) -> None:
    found = read(row)
    assert (found.kind, found.labels) == ("pairs", ("reward",))
    (judged,) = found.rows
    assert judged.prompt == prompt
    assert [text.strip() for text in judged.completions] == ["good", "bad"]
    assert judged.targets == ()


def test_columns_from_best_to_worst_are_a_ranking() -> None:
    row = {"prompt": "q", "optimised": "a", "initial": "b", "degraded": "c", "rejected": "none of it"}
    found = read(row, ranked=("optimised", "initial", "degraded"))
    assert found.rows[0].completions == ("a", "b", "c")
    with pytest.raises(UsageError, match="there is no text in column 'worst'"):
        read(row, ranked=("optimised", "worst"))
    with pytest.raises(UsageError, match="two columns or more"):
        read(row, ranked=("optimised",))


def test_graded_rows_may_lack_some_scores() -> None:
    rows = [
        {"prompt": "q", "completion": "a", "kind": 1, "safe": ""},
        {"prompt": "q", "completion": "b", "kind": "0.5", "safe": 3},
        {"prompt": "q", "completion": "c", "kind": None, "safe": float("nan")},
        {"prompt": "q", "completion": "d", "safe": 4},
    ]
    said: list[str] = []
    found = read(*rows, score_fields=("kind", "safe"), log=said.append)
    assert found.kind == "scores"
    assert [row.targets for row in found.rows] == [(1.0, None), (0.5, 3.0), (None, 4.0)]
    assert "1 of 4 rows have none of kind, safe" in said[0]


def test_labels_are_truth_values_in_any_spelling() -> None:
    rows = [{"prompt": "q", "completion": c, "liked": y} for c, y in (("a", True), ("b", "0"), ("c", "TRUE"), ("d", 0))]
    found = read(*rows, label_field="liked")
    assert (found.kind, found.labels) == ("labels", ("liked",))
    assert [row.targets for row in found.rows] == [(1.0,), (0.0,), (1.0,), (0.0,)]


def test_a_system_message_and_a_template_go_into_the_prompt() -> None:
    spec = PromptSpec(system="be kind", template="Q: {question}")
    found = read({"question": "why", "chosen": "a", "rejected": "b"}, spec=spec)
    assert found.rows[0].prompt == [{"role": "system", "content": "be kind"}, user("Q: why")]


def test_equal_completions_are_left_out_and_told() -> None:
    said: list[str] = []
    rows = [{"prompt": "q", "chosen": "a", "rejected": other} for other in ("a", "b")]
    assert len(read(*rows, log=said.append).rows) == 1
    assert "1 of 2 rows have the same text throughout" in said[0]


@pytest.mark.parametrize(
    ("rows", "how", "says"),
    [
        ([{"prompt": "q", "text": "a"}], {}, "say nothing of how good a completion is .they have: prompt, text"),
        ([{"prompt": "q", "chosen": "a"}], {}, "there is no text in column 'rejected'"),
        ([{"completion": "a", "label": 1}], {}, "there is no column 'prompt'"),
        ([{"prompt": "q", "completion": "a", "label": 2}], {}, "'label' must be true or false"),
        ([{"prompt": "q", "completion": "a", "label": 1}], {}, "is 1 in every row that has it"),
        ([{"prompt": "q", "completion": "a", "s": "high"}], {"score_fields": ("s",)}, "'s' must be a number, or empty"),
        ([{"prompt": "q", "completion": "a", "s": None}], {"score_fields": ("s",)}, "no row is left to learn from"),
        ([{"prompt": "q", "completion": "a", "s": 1}], {"score_fields": ("s", "s")}, "names a column twice"),
        ([{"prompt": "q", "completion": "a"}], {"score_fields": ("s",), "ranked": ("a", "b")}, "give one of them"),
        ([{"prompt": "q", "chosen": "a", "rejected": "a"}], {}, "no row is left"),
        ([{"chosen": "a", "rejected": [assistant("b")]}], {}, "texts in part and messages in part"),
        ([{"prompt": "q", "chosen": 3, "rejected": "b"}], {}, "row 1: 'chosen' must be a text"),
    ],
)
def test_rows_that_judge_nothing_are_refused(rows: list[dict[str, Any]], how: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(*rows, **how)
