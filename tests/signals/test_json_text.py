"""JSON in completions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.signals.json_text import (
    NOTHING,
    fields_equal,
    fields_overlap,
    is_bare,
    is_fenced,
    keys_present,
    read_json,
    same,
    word_overlap,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=4)


@given(VALUES)
def test_what_json_writes_is_read_with_and_without_a_fence(value):
    text = json.dumps(value)
    for written in (text, f" {text}\n", f"```json\n{text}\n```", f"```\n{text}```", f"```JSON \n{text}\n  ```  "):
        assert same(read_json(written), value)
    assert is_fenced(f"```json\n{text}\n```")
    assert not is_fenced(text)
    assert not is_bare(f"```json\n{text}\n```")


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "[Infinity]", "{'a': 1}", "Sure: {}", "{} {}", "```json\n{}", "``` {} ```", "[" * 100_000, "1" * 9999],
)
def test_what_is_no_json_is_nothing(text):
    assert read_json(text) is NOTHING


def test_two_fences_are_not_one():
    assert not is_fenced("```json\n{}\n```\nor\n```json\n{}\n```")
    assert is_fenced('```json\n{"a": "```"}\n```')


@given(OBJECTS)
def test_an_object_has_all_of_itself(value):
    assert keys_present(value, list(value)) == fields_equal(value, value) == fields_overlap(value, value) == 1.0
    assert keys_present(value, [*value, "none of them"]) == len(value) / (len(value) + 1)
    assert fields_overlap({}, value) == fields_overlap([value], value) == keys_present([value], list(value)) == 0.0


@given(OBJECTS, st.text(min_size=5, max_size=6), VALUES)
def test_an_invented_field_costs_where_fields_are_equal_and_not_where_words_are_shared(value, key, more):
    longer = {**value, key: more}
    assert fields_equal(longer, value) == pytest.approx(len(value) / (len(value) + 1))
    assert fields_overlap(longer, value) == 1.0
    assert not same(longer, value)


def test_numbers_are_equal_however_they_are_written_and_truth_values_are_no_numbers():
    assert same({"a": 1.0, "b": [2]}, {"b": [2.0], "a": 1})
    assert not same([1], [True])
    assert not same([0], [False])
    assert not same({"a": 1}, [["a", 1]])
    assert not same("1", 1)


@given(st.text(max_size=20), st.text(max_size=20))
def test_overlap_is_symmetric_and_a_share(said, wanted):
    assert word_overlap(said, wanted) == word_overlap(wanted, said)
    assert 0.0 <= word_overlap(said, wanted) <= 1.0
    assert word_overlap(said, said) == 1.0
