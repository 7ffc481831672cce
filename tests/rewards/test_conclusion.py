"""What a completion concludes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rewards.builtin import KINDS
from cohort.rewards.conclusion import concludes, conclusion, last_part

OPTIONS = ("(1, 2) up", "(3, 4) left", "7")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("B", True),
        ("(B)", True),
        ("<answer>B</answer>", True),
        ("<answer>\n\nB\n\n</answer>", True),
        ("It moves.\n\nThe answer is B.", True),
        ("The answer is B. A would be wrong.", True),
        ("It is A.\n\nNo: it is B.", True),
        ("The answer is B.\n\nNo, it is A.", False),
        ("(3, 4)  LEFT", True),
        ("(1, 2) up", False),
        ("", False),
        ("A B C", False),
        ("<think>B</think> I do not know", False),
        ("Be", False),
        ("b", False),
    ],
)
def test_a_letter_of_the_options(text, right):
    assert concludes(text, "B", OPTIONS) is right


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("It changes 3 times.", "3", True),
        ("It changes 13 times.", "3", False),
        ("First 3.\n\nThen 4.", "3", False),
        ("<answer>3</answer>", "3", True),
        ("<answer>3 or 4</answer>", "3", False),
        ("It is at (2, 3) UP", "(2, 3) up", True),
        ("It is at (2,3) up.", "(2, 3) up", True),
        ("It was at (2, 3) up and is at (2, 4) up", "(2, 3) up", False),
        ("<answer>(2,3) up</answer>", "(2, 3) up", True),
        ("(12, 3) up", "(2, 3) up", False),
        ("It moves, and therefore it rests.", "rests", True),
        ("rests", "rests", True),
    ],
)
def test_numbers_and_texts(text, gold, right):
    assert concludes(text, gold) is right


@settings(max_examples=30)
@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_what_stands_before_the_last_part_does_not_matter(before, other, part):
    conclusion = "### " + part.replace("#", "")
    assert last_part(f"{before}{conclusion}") == last_part(f"{other}{conclusion}") == conclusion.strip()


def test_rows_without_an_answer_have_no_value():
    assert conclusion(["B", "B", "7"], ["B", None, "7"], options=[OPTIONS, OPTIONS, None]) == [1.0, None, 1.0]
    assert conclusion(["B"], ["B"]) == [1.0]
    assert KINDS["conclusion"].verifies
    assert KINDS["conclusion"].make("x") is None
