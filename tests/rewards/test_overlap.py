"""The reward `overlap`."""

from __future__ import annotations

import pytest

from cohort.errors import UsageError
from cohort.rewards.spec import parse


def test_it_compares_the_final_answer_with_the_best_of_the_rows_answers() -> None:
    (spec,) = parse(["overlap"])
    said = ["<think>Rome</think> Paris", "\\boxed{the eiffel tower}", "", "Paris", "paris", "2"]
    answers = ["paris", ["the eiffel tower in paris", "eiffel tower"], "paris", None, ["rome", None, "paris"], 2]
    values = spec.load()(completions=said, answer=answers)
    assert values == pytest.approx([1.0, 0.57735, 0.0, None, 1.0, 1.0], abs=1e-5)


def test_an_argument_that_is_no_number_is_refused() -> None:
    (short,) = parse(["overlap:1"])
    assert short.load()(completions=["b a"], answer=["a b"]) == [1.0]
    (spec,) = parse(["overlap:x"])
    with pytest.raises(UsageError, match="write overlap or overlap:N"):
        spec.load()
