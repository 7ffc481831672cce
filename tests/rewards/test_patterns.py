"""Rewards of completions that match a regular expression."""

from __future__ import annotations

import time

import pytest

from cohort.errors import UsageError
from cohort.rewards.patterns import LATE, answer_like, format_like
from cohort.rewards.spec import parse


@pytest.mark.parametrize(
    ("pattern", "completion", "expected"),
    [
        ("^<think>", "<think> hm", 1.0),
        ("^<think>", "well, <think>", 0.0),
        ("<think>.*</think>", "<think>one\ntwo</think> 3", 1.0),
        (r"\d+$", "no digits", 0.0),
        ("", "anything", 1.0),
    ],
)
def test_format_searches_and_lets_a_dot_match_line_breaks(pattern, completion, expected):
    chat = [{"role": "assistant", "content": completion}]
    assert format_like(pattern)([completion, chat]) == [expected, expected]


def test_a_malformed_expression_is_refused():
    with pytest.raises(UsageError, match="no regular expression"):
        format_like("(")


def test_the_final_answer_matches_as_a_whole():
    said = ["<think>no</think> 2024-01-31", "it is 2024-01-31", "so <answer>2024-02-01</answer>"]
    assert answer_like(r"\d{4}-\d\d-\d\d")(said) == [1.0, 0.0, 1.0]
    assert answer_like(None)(said, regex=[".*31", "it.*", "x"]) == [1.0, 1.0, 0.0]


def test_a_pathological_pattern_costs_its_limit_and_is_counted():
    logged: list[tuple[str, int]] = []
    begin = time.process_time()
    found = format_like(r"^(a|aa)+$")(
        ["a" * 90 + "b", "aa"], log_metric=lambda name, value: logged.append((name, value))
    )
    assert (found, logged) == ([0.0, 1.0], [(LATE, 1)])
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"regex": "a"}, {}], "line 2 lacks"),
        ([{"regex": "("}], "line 1, column 'regex': no regular expression"),
        ([{"regex": 3}], "line 1, column 'regex': a regular expression was expected"),
        ([{"regex": ""}], "lacks"),
    ],
)
def test_rows_without_an_expression_are_told(rows, said):
    (spec,) = parse(["regex"])
    with pytest.raises(UsageError, match=r"line [12]") as error:
        spec.check_rows([(f"line {i}", row) for i, row in enumerate(rows, 1)])
    assert said in str(error.value)
    parse([r"regex:\d+"])[0].check_rows([("line 1", {})])
