"""Words of texts: how they are compared, repeated, and put between tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.wording import (
    answer_tag,
    bleu1,
    boxes_in_thought,
    f1,
    normal_words,
    region,
    tags_in_order,
    unrepeated,
)

WORDS = st.lists(st.sampled_from(["red", "car", "road", "the", "2"]), max_size=12)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("1,234 men", "1234 men"),
        ("2.50", "2.5"),
        ("−3", "-3"),
        ("don’t", "don't"),
        ("**Paris**", "paris"),
        ("ﬁve", "five"),
        ("a-b", "a b"),
        ("the", "The"),
    ],
)
def test_texts_that_are_equal(said, wanted):
    assert normal_words(said) == normal_words(wanted)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("C++", "C"),
        ("C#", "C"),
        ("45%", "45"),
        ("-5", "5"),
        ("1.5", "15"),
        ("12,5", "125"),
        ("the", "a"),
        ("", "the"),
        ("10.50", "1050"),
    ],
)
def test_texts_that_are_not(said, wanted):
    assert normal_words(said) != normal_words(wanted)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_full_for_the_same_words_in_any_order(said, wanted):
    assert f1(said, wanted) == f1(wanted, said)
    assert (f1(said, wanted) == 1.0) == (sorted(said) == sorted(wanted))


@given(WORDS, WORDS)
def test_bleu_is_a_share_and_full_for_the_text_itself(said, wanted):
    mine, theirs = " ".join(said), " ".join(wanted)
    assert 0.0 <= bleu1(mine, theirs) <= 1.0
    assert bleu1(theirs, theirs) == (1.0 if wanted else 0.0)


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9))
def test_variety_lies_between_minus_one_and_one(words, tokens, length):
    assert -1.0 <= unrepeated(words, tokens, length) <= 1.0


def test_a_sentence_said_again_and_again_loses_variety_alone():
    text = "<think>one two</think><rethink>three</rethink><answer>4"
    again = f"<think>{'one two three four five six seven eight ' * 6}</think><rethink>x</rethink><answer>4"
    assert tags_in_order(again) == tags_in_order(text) == answer_tag(again) == answer_tag(text) == 1.0
    assert unrepeated(again.split(), again.split()) < unrepeated(text.split(), text.split()) == 1.0


@given(
    st.lists(st.tuples(*[st.integers(0, 999)] * 4), max_size=4),
    st.lists(st.tuples(*[st.integers(0, 999)] * 4), max_size=4),
)
def test_where_a_box_lies_does_not_matter(some, others):
    def text(boxes):
        return "<think>" + "; ".join(", ".join(map(str, box)) for box in boxes) + "</think><rethink>"

    count = min(len(some), len(others))
    assert boxes_in_thought(text(some)) == len(some)
    assert region(text(some[:count]), 2) == region(text(others[:count]), 2) <= 1.5
