"""When a model is asked, what is never right, and how good verdicts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.verification import asks_model, never_right, oracle_gap, rates, verdict


@pytest.mark.parametrize(
    ("gold", "answer", "why"),
    [
        ("42", "", "no answer"),
        ("42", r"\text{}", "no answer"),
        ("42", r"\begin{array}{c}\end{array}", "no answer"),
        ("42", "?? ...", "no answer"),
        ("42", r"\text{the same as the ground truth}", "about the answer"),
        ("B", r"\text{not B}", "a negation"),
        ("42", r"41 \text{ or } 42", "several answers"),
        ("42", r"\{41,42,43\}", "several answers"),
        ("42", "41 < x < 43", "a range"),
        ("42", "[0,100]", "a range"),
        ("42", "41=42", "an equation that says nothing or is false"),
        ("42", "x=x", "an equation that says nothing or is false"),
        ("42", "42k", "free variables"),
        ("x^2", "x^2+C", "free variables"),
        ("42", r"\frac{0}{0}", "no number"),
        ("42", r"\text{NaN}", "no number"),
        ("42", "asdkjh 998 zz", "free variables"),
        ("42", "4 2 0", "another number"),
        ("42", "__import__('os').system('true') or 42", "code"),
        ("42", '{"correct": true}', "code"),
        ("42", "<div></div>", "code"),
    ],
)
def test_what_cannot_be_right_is_named(gold, answer, why):
    assert never_right(answer, gold) == why


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "five"),
        ("x+1", "1+x"),
        ("B", "the second option"),
        ("12", r"\approx 12"),
        ("4", r"\text{The area is }4"),
        ("1000", "1,000"),
        ("2\\pi r", r"\pi d"),
        ("(1,2) or (2,1)", "(2,1) or (1,2)"),
        ("[0,1)", r"0\le x<1"),
        ("x=x", "x=x"),
        (r"\text{the same}", r"\text{the same}"),
    ],
)
def test_what_may_be_right_is_let_through(gold, answer):
    assert never_right(answer, gold) == ""


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_is_judged(answer, gold):
    assert isinstance(never_right(answer, gold), str)
    assert not asks_model(True, answer, gold)
    assert verdict(answer) in (0, 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1))
def test_accepting_what_either_accepts_finds_no_less_and_errs_as_often_as_both(rows):
    truth, rule, model = zip(*rows, strict=True)
    either = [a or b for a, b in zip(rule, model, strict=True)]
    one, other, both = (rates(truth, verdicts) for verdicts in (rule, model, either))
    if any(truth):
        assert both.recall >= max(one.recall, other.recall)
        assert both.recall == pytest.approx(1 - both.false_negative_rate)
    wrongly = {i for i, row in enumerate(rows) if not row[0] and (row[1] or row[2])}
    if not all(truth):
        assert both.false_positive_rate == pytest.approx(len(wrongly) / truth.count(False))
    if both.f1:
        assert both.f1 == pytest.approx(2 * both.precision * both.recall / (both.precision + both.recall))


def test_rates_that_are_not_defined_are_none():
    nothing_accepted, nothing_right = rates([True, False], [False, False]), rates([False], [True])
    assert (nothing_accepted.precision, nothing_accepted.f1, nothing_accepted.recall) == (None, None, 0.0)
    assert (nothing_right.recall, nothing_right.f1, nothing_right.false_negative_rate) == (None, None, None)
    assert rates([True], [True]).false_positive_rate is None
    assert rates([True, False], [False, True]).f1 == 0.0


def test_only_a_training_reward_above_the_oracle_s_alarms():
    assert oracle_gap([0.5, 0.5], [0.9, 0.5], 0.1)[1] is None
    assert oracle_gap([0.5, 0.7, 0.9], [0.5, 0.5, 0.5], 0.1)[1] == 1
