"""Attacks on verifiers that are models: the rules pay none of them, nor is a model asked."""

from __future__ import annotations

import pytest

from cohort.rewards.verifiers import strict_math
from cohort.signals.answers import last_box
from cohort.signals.attacks import BLIND, PATTERNS, made_of
from cohort.signals.verification import asks_model, never_right

# A wrong answer of the right kind is a model's to judge; so are letters in a row where the gold answer has some.
ANSWERS = {"7919", "70.757", "asdkjh 998 zz"}


@pytest.mark.parametrize("gold", ["42", "0", "-7", "0.5", r"\frac{3}{4}", "B", "x^2"])
def test_no_attack_is_right_or_asked_about(gold):
    texts = [text for part in (BLIND, made_of(gold)) for texts in part.values() for text in texts]
    assert strict_math(completions=texts, answer=[gold] * len(texts)) == [0.0] * len(texts)
    said = [last_box(text) or "" for text in texts]
    let_through = [text for text in said if asks_model(False, text, gold) and not never_right(text, gold)]
    assert set(let_through) <= (ANSWERS if not gold.isdecimal() else set())


def test_patterns_are_named_once():
    assert len(set(PATTERNS)) == len(PATTERNS) == len(BLIND) + len(made_of("1"))
