"""The final answer of a completion: where it is marked, and which number it is."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rewards.answers import answer_key, boxed, final_answer, last_number, marked, number, plain


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
    ],
)
def test_boxed_is_the_last_box_with_its_braces_balanced(text, expected):
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
        ("5", "5"),
        ("first 3, then 12", "12"),
        ("-5", "-5"),
        ("it is -5.", "-5"),
        ("(-5)", "-5"),
        ("x=-5", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("$1,234.50 in all", "1234.50"),
        ("1,234,567", "1234567"),
        ("3,5,7", "7"),
        ("12,3456", "3456"),
        ("0.25", "0.25"),
        (".25", "0.25"),
        ("-.25", "-0.25"),
        ("the answer is 5.", "5"),
        ("25%", "25"),
        ("4-1=3", "3"),
        ("5-9=-4", "-4"),
        ("4-1", "1"),
        ("(2+1)-7", "7"),
        ("5 - 9", "9"),
        ("2+3", "3"),
        ("5:30", "30"),
        ("007", "7"),
        ("x2", "2"),
        ("no number", None),
        ("", None),
        ("-", None),
        ("$", None),
    ],
)
def test_last_number(text, expected):
    assert last_number(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42", "42"),
        (" 42 ", "42"),
        ("-42", "-42"),
        ("+42", "42"),
        ("4.20", "4.2"),
        ("42.", "42"),
        ("$42", "42"),
        ("-$42", "-42"),
        ("1,234", "1234"),
        ("-1,234,567.5", "-1234567.5"),
        ("1e3", "1000"),
    ],
)
def test_number_reads_a_text_that_is_one(text, expected):
    assert number(text) == Decimal(expected)


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "4-1", "1/2", "3,5,7", "-2,1", "12,34", "1,2345", "5 dollars", "nan", "Infinity", "50%"]
)
def test_number_is_none_for_a_text_that_is_no_single_finite_number(text):
    assert number(text) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", "5"),
        ("5.00", "5"),
        ("-0.0", "0"),
        ("0", "0"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("-2.50", "-2.5"),
        ("0.1", "0.1"),
        ("123456789012345678901234567890123", "123456789012345678901234567890123"),
    ],
)
def test_plain_has_no_exponent_no_trailing_zeros_and_all_digits(value, expected):
    assert plain(Decimal(value)) == expected


@settings(deadline=None)
@given(st.integers())
def test_an_integer_is_found_again_however_it_is_written(value):
    for text in (
        f"{value}",
        f"so it is {value}.",
        f"#### {value:,}",
        f"\\boxed{{{value}}}",
        f"<answer>{value}</answer>",
    ):
        assert last_number(final_answer(text)) == value
        assert answer_key(text) == str(value)
    assert number(f"{value:,}") == value


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_plain_is_read_back_as_the_same_number(value):
    assert number(plain(value)) == value
    assert last_number(f"= {plain(value)}") == value


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_searched(text):
    value = last_number(text)
    assert value is None or value.is_finite()
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
    ],
)
def test_different_answers_have_different_keys(one, other):
    assert answer_key(one) != answer_key(other)


@pytest.mark.parametrize("text", ["", "no idea", "<answer></answer>", r"\boxed{}", "5 and then <answer></answer>"])
def test_no_answer_has_no_key(text):
    assert answer_key(text) is None
