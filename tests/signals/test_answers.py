"""The final answer of a completion: where it is marked, and which number it is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.signals.answers import (
    answer_key,
    boxed,
    final_answer,
    final_number,
    gold_number,
    gold_spellings,
    is_missing,
    marked,
    outside_thought,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{ 42 }", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\frac{\sqrt{3}}{2^{n}}} is it", r"\frac{\sqrt{3}}{2^{n}}"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{}", ""),
        (r"cut off \boxed{\frac{1}{2}", None),
        ("no box", None),
        ("", None),
        (r"\boxed {4}", "4"),
        (r"not \boxed{3}: \fbox{4}", "4"),
        ("\\boxed\n{4}", "4"),
        (r"\boxed{4}. Again: \boxed{5", "4"),
        (r"\boxed{4}. Again: \boxed{5 and {so}", "4"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{\boxed{4} + 1}", r"\boxed{4} + 1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x}", r"\left\{ x"),
        (r"} \boxed{4} }", "4"),
        (r"{ \boxed{4}", "4"),
        (r"\boxed{4}}}", "4"),
        (r"\boxedness{4}", None),
    ],
)
def test_boxed_is_the_last_box_that_is_closed(text, expected):
    assert boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>7</answer>", "7"),
        ("<answer>\n 7 \n</answer>", "7"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("<answer></answer>", ""),
        (r"\boxed{3} <answer>4</answer> #### 5", "4"),
        (r"#### 5 and \boxed{3}", "3"),
        ("I compute.\n#### 18", "18"),
        ("#### 1\nagain\n#### 2 ", "2"),
        ("####", ""),
        ("<answer>never closed", None),
        ("just 5", None),
        ("put it into <answer> tags: <answer>4</answer>", "4"),
        ("<answer>4</answer> <answer>", "4"),
        ("<answer>4</answer> </answer>", "4"),
        ("</answer><answer>4</answer>", "4"),
        ("<Answer>4</ANSWER>", "4"),
        (r"<answer>\boxed{4}", "4"),
        ("#### 42\n\nLet me check: 6*7=42, in 2 steps", "42"),
        ("#### 1,234 dollars\nDone in 3 steps", "1,234 dollars"),
        ("#### Final answer\nIt is 42", "Final answer\nIt is 42"),
        ("<think>4+3 goes into <answer> tags</think><answer>4</answer>", "4"),
        ("<think><answer>3</answer></think> <answer>4</answer>", "4"),
        (r"<think>\boxed{3}</think> <answer>4</answer>", "4"),
        (r"so \boxed{3}</think> \boxed{4}", "4"),
        (r"<think>\boxed{3}</think>", None),
        (r"<think>\boxed{3}", None),
        ("<reasoning>#### 3</reasoning>#### 4", "4"),
        (r"[THINK]\boxed{3}[/THINK] \boxed{4}", "4"),
        (r"<think>a</think> \boxed{3} <think>b</think> \boxed{4}", "4"),
        (r"\boxed{4} <think> or is it \boxed{5}", "4"),
    ],
)
def test_marked_takes_tags_then_boxes_then_hashes(text, expected):
    assert marked(text) == expected


def test_final_answer_is_the_whole_text_where_nothing_is_marked():
    assert final_answer("  the answer is 5 ") == "the answer is 5"
    assert final_answer("it is <answer> 5 </answer>, surely") == "5"
    assert final_answer("<answer></answer> 5") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>it is 3</think>\n\nSo 4.", "So 4."),
        ("it is 3</think> So 4.", "So 4."),
        ("<think>it is 3", ""),
        ("<THINKING>a</THINKING>b", "b"),
        ("I think so", "I think so"),
    ],
)
def test_reasoning_holds_no_answer(text, expected):
    assert final_answer(text) == outside_thought(text).strip() == expected


@settings(deadline=None)
@given(st.integers())
def test_an_integer_is_found_again_however_it_is_written(value):
    for text in (f"{value}", f"#### {value:,}", f"\\boxed{{{value}}}", f"<answer>{value}</answer>"):
        assert final_number(text) == gold_number(text) == value
        assert answer_key(text) == str(value)


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_searched(text):
    key = answer_key(text)
    assert key is None or key
    assert isinstance(final_answer(text), str)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "5.0"),
        ("it is 1,000", r"\boxed{1000}"),
        ("<answer>5</answer> and 7", "#### $5.00"),
        ("\\boxed{x + 1}", "\\boxed{x  +\n1}"),
        (r"\boxed{\frac{1}{2}}", r"\fbox{0.5}"),
        (r"\boxed{12{,}000}", "12 000"),
        ("1e3", "<answer>1000 km</answer>"),
        ("it is \u22125", r"\boxed{-5}"),
        (r"\boxed{x = 5}", "#### 5"),
    ],
)
def test_equal_answers_have_equal_keys(one, other):
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", "-5"),
        (r"\boxed{\frac{1}{2}}", r"\boxed{\frac{3}{2}}"),
        (r"\boxed{\sqrt{2}}", r"\boxed{2}"),
        (r"\boxed{1,2}", r"\boxed{2}"),
        (r"\boxed{10^2}", r"\boxed{2}"),
        (r"\boxed{12\,000}", r"\boxed{0}"),
    ],
)
def test_different_answers_have_different_keys(one, other):
    assert answer_key(one) != answer_key(other)


@pytest.mark.parametrize(
    "text", ["", "no idea", "<answer></answer>", r"\boxed{}", "5 and then <answer></answer>", "4-1", "<think>5"]
)
def test_no_answer_has_no_key(text):
    assert answer_key(text) is None


@pytest.mark.parametrize(
    ("gold", "value"),
    [
        (18, "18"),
        (18.0, "18"),
        (0.5, "0.5"),
        (1e22, "1e22"),
        (r"\$18", "18"),
        ("18%", "18"),
        ("1,000", "1000"),
        (r"$\frac12$", "0.5"),
        ("1/3", "1/3"),
        (r"\boxed{18}", "18"),
        ("Work.\n#### 18", "18"),
        ("18 apples", "18"),
        ("\u22125", "-5"),
    ],
)
def test_a_row_s_answer_is_read_as_a_number_in_every_spelling(gold, value):
    assert gold_number(gold) == Fraction(value)


@pytest.mark.parametrize("gold", ["three", "3,5,7", "x + 1", "nan", "inf", True, [1, 2], "2 of 3"])
def test_a_row_s_answer_that_is_no_number_is_none(gold):
    assert gold_number(gold) is None


@pytest.mark.parametrize("gold", [None, float("nan"), "", "  ", "None", " None "])
def test_an_answer_may_be_missing(gold):
    assert is_missing(gold)


@pytest.mark.parametrize("gold", [0, 0.0, False, "0", "none", "NA", "null", "no"])
def test_an_answer_that_says_little_is_one(gold):
    assert not is_missing(gold)


@pytest.mark.parametrize(
    ("gold", "spelled", "others"),
    [
        ("007", {"007"}, {"7"}),
        (18.0, {"18.0", "18"}, set()),
        (18, {"18"}, {"18.0"}),
        (True, {"True", "true"}, {"1"}),
        (r"\boxed{a  b}", {r"\boxed{a b}", "a b"}, set()),
        ("1.50", {"1.50"}, {"1.5"}),
    ],
)
def test_an_answer_is_spelled_as_it_stands(gold, spelled, others):
    assert spelled <= gold_spellings(gold)
    assert not others & gold_spellings(gold)
