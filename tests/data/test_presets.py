"""Well-known data sets, recognised by their columns; the samples are the first rows of the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.data.load import load_rows
from cohort.data.presets import apply_preset, plain_number

SAMPLES = Path(__file__).parent / "samples"

# file -> preset, and how each row's prompt begins and ends, and its answer.
EXPECTED = {
    "gsm8k-test": (
        "GSM8K",
        [
            ("Janet’s ducks lay 16 eggs per day.", "every day at the farmers' market?", "18"),
            ("A robe takes 2 bolts of blue fiber", "How many bolts in total does it take?", "3"),
            ("Josh decides to try flipping a house.", "How much profit did he make?", "70000"),
        ],
    ),
    "svamp-test": (
        "SVAMP",
        [
            ("There are 87 oranges and 290", "into 93 groups. How big is each group of bananas?", "145"),
            ("Marco and his dad went strawberry", "30 pounds. How much did Marco's strawberries weigh?", "19"),
            ("Edward spent $ 6 to buy 2 books", "Now he has $ 12. How much did each book cost?", "3"),
        ],
    ),
    "aime24-test": (
        "AIME24 and AMC23",
        [
            ("Every morning Aya goes for a $9$-kilometer", "the $t$ minutes spent in the coffee shop.", "204"),
            (r"Let $ABC$ be a triangle inscribed in circle $\omega$.", "Find $m + n$.", "113"),
            ("Each vertex of a regular octagon", "What is $m+n$?", "371"),
        ],
    ),
    "amc23-test": (
        "AIME24 and AMC23",
        [
            ("Cities $A$ and $B$ are $45$ miles apart.", "will they be when they meet?", "27"),
            ("Positive real numbers $x$ and $y$", "What is $x+y$?", "36"),
            ("What is the degree measure", r"lines with slopes $2$ and $\frac{1}{3}$?", "45"),
        ],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_rows_of_real_data_sets_become_prompts_and_answers(name):
    preset, expected = EXPECTED[name]
    raw = load_rows(SAMPLES / f"{name}.jsonl")
    rows, found = apply_preset(raw)
    assert found == preset
    assert len(rows) == len(expected)
    for before, row, (begin, end, answer) in zip(raw, rows, expected, strict=True):
        assert row["prompt"].startswith(begin)
        assert row["prompt"].endswith(end)
        assert row["answer"] == answer
        # Every column of the data set stays, for templates and reward functions.
        assert set(before) <= set(row)


def test_a_worked_solution_is_kept_as_the_solution():
    (row, *_), _ = apply_preset(load_rows(SAMPLES / "gsm8k-test.jsonl"))
    assert row["solution"].startswith("Janet sells 16 - 3 - 4")
    assert row["solution"].endswith("#### 18")
    (row, *_), _ = apply_preset(load_rows(SAMPLES / "aime24-test.jsonl"))
    assert "hours" in row["solution"]


def test_svamp_bodies_are_ended_before_the_question():
    def prompt(body):
        ((row,), _) = apply_preset(load_rows([{"Body": body, "Question": " How many? ", "Answer": 2.0}]))
        return row["prompt"]

    assert prompt("There are two") == "There are two. How many?"
    assert prompt("There are two.") == "There are two. How many?"
    assert prompt("If there are two, ") == "If there are two, How many?"


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "p", "question": "q", "answer": "#### 1"}],
        [{"question": "q", "answer": "1"}],
        [{"question": "q", "answer": "#### 1"}, {"question": "q", "answer": "1"}],
        [{"question": "q"}],
        [{"Body": "b", "Question": "q"}],
        [{"problem": "p"}],
        [{"text": "t"}],
    ],
)
def test_other_rows_stay_as_they_are(rows):
    assert apply_preset(rows) == (rows, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.0, "27"),
        (27, "27"),
        (0.5, "0.5"),
        ("025", "25"),
        ("1,000", "1000"),
        (r" \frac{1}{2} ", r"\frac{1}{2}"),
        ("3,5,7", "3,5,7"),
        ("-2,1", "-2,1"),
        ("(3, 4)", "(3, 4)"),
        ("123456789012345678901234567890123", "123456789012345678901234567890123"),
    ],
)
def test_numeric_answers_are_written_plainly_and_others_as_they_are(value, text):
    assert plain_number(value) == text


def test_problems_of_programming_are_asked_as_their_data_sets_ask_them() -> None:
    mbpp = {
        "text": "Write a function to add.",
        "code": "x",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    }
    apps = {"question": " Double it.\n", "input_output": "{}", "starter_code": "class Solution:\n"}
    bench = {"question_content": "Echo.", "public_test_cases": "[]", "starter_code": ""}
    kod = {"question": "Square it.", "test": "from solution import f\ndef test_f(): assert f(2) == 4", "solution": "x"}
    for row, prompt in (
        (mbpp, "Write a function to add.\n\nThis must hold:\n```python\nassert add(1, 2) == 3\n```"),
        (apps, "Double it.\n\nBegin with:\n```python\nclass Solution:\n```"),
        (bench, "Echo."),
        (kod, "Square it."),
    ):
        ((read,), name) = apply_preset(load_rows([row]))
        assert (name, read["prompt"]) == ("problems of programming", prompt)
        assert "answer" not in read
    for row in ({"question": "x", "test": "yes"}, {"problem": "x", "tests": ""}, {"tests": [1]}):
        assert apply_preset(load_rows([row]))[1] is None
