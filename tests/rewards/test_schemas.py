"""JSON schemas: what satisfies one, and how much of it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.rewards.schemas import Schema, schema_in, schema_of
from cohort.signals import patterns

PERSON = {
    "type": "object",
    "required": ["name", "age", "home"],
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "home": {"$ref": "#/$defs/place"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "required": ["city", "zip"], "properties": {"city": {"type": "string"}}}},
}
RIGHT = {"name": "Ada", "age": 36, "home": {"city": "London", "zip": "W1"}, "tags": ["x"]}
SCHEMA = schema_of(PERSON, "here")


def without(value, key):
    return {k: v for k, v in value.items() if k != key}


def test_what_is_right_is_full_marks():
    assert SCHEMA.holds(RIGHT)
    assert SCHEMA.share(RIGHT) == SCHEMA.share(without(RIGHT, "tags")) == 1.0


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (without(RIGHT, "age"), 3 / 4),
        ({**RIGHT, "age": "36"}, 3 / 4),
        ({**RIGHT, "age": -1}, 3 / 4),
        ({**RIGHT, "extra": 1}, 4 / 5),
        ({**RIGHT, "home": {"city": "London"}}, 3.5 / 4),
        ({**RIGHT, "home": "London"}, 3 / 4),
        ({**RIGHT, "tags": ["x", 1, 2, 3]}, 3.25 / 4),
        ({}, 0.0),
        ([], 0.0),
        ("Ada", 0.0),
        (None, 0.0),
    ],
)
def test_the_share_says_how_much_is_right(value, share):
    assert not SCHEMA.holds(value)
    assert SCHEMA.share(value) == pytest.approx(share)


@given(st.sets(st.sampled_from(sorted(RIGHT))), st.sampled_from(sorted(RIGHT)))
def test_a_right_part_more_never_lowers_the_share(keys, more):
    some = {key: RIGHT[key] for key in keys}
    assert SCHEMA.share({**some, more: RIGHT[more]}) >= SCHEMA.share(some)
    assert (SCHEMA.share(some) == 1.0) == SCHEMA.holds(some)


def test_a_rule_over_the_parts_keeps_the_share_below_one():
    either = schema_of(
        {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"c": {}}}, ""
    )
    assert either.share({"c": 1}) == 0.5
    assert either.share({"c": 1, "b": 2}) == 1.0
    hidden = schema_of(
        {"required": ["a"], "properties": {"a": {"$ref": "#/$defs/n", "minimum": 3}}, "$defs": {"n": {}}}, ""
    )
    assert hidden.share({"a": 1}) == 0.99


def test_schemas_that_refer_to_themselves_end():
    tree = schema_of({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["v"]}, "")
    deep: dict = {"v": 0}
    for _ in range(200):
        deep = {"v": 0, "next": deep}
    assert tree.share(deep) == 1.0
    assert tree.share({"v": 0, "next": {"next": {"v": 1}}}) == pytest.approx((1 + (0 + 1) / 2) / 2)
    for _ in range(5000):
        deep = {"v": 0, "next": deep}
    assert not tree.holds(deep)
    assert tree.share(deep) == 0.0
    assert schema_of({"$ref": "#"}, "").share({}) == 0.0


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "no JSON"),
        ("[1]", "expected a JSON schema"),
        (3, "expected a JSON schema"),
        (None, "got nothing"),
        ({"type": "objekt"}, "no schema at type: 'objekt'"),
        ({"properties": {"a": {"minimum": "3"}}}, "no schema at properties/a/minimum"),
        ({"required": "name"}, "no schema at required"),
        ({"$ref": "#/$defs/none"}, "nothing is fetched"),
        ({"$ref": "https://example.com/other.json"}, "nothing is fetched"),
        ({"properties": {"a": {"pattern": "("}}}, "'(' is not a 'regex'"),
        ({"patternProperties": {"[": {}}}, "'[' is not a 'regex'"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(schema, said):
    with pytest.raises(UsageError, match="line 3") as error:
        schema_of(schema, "line 3")
    assert said in str(error.value)


def test_patterns_in_a_schema_have_a_time_limit(monkeypatch):
    monkeypatch.setattr(patterns, "TEXT", 0.1)
    slow = r"^(a|aa)+$"
    for schema, value in (
        ({"properties": {"a": {"pattern": slow}}}, {"a": "a" * 90 + "b"}),
        ({"patternProperties": {slow: {"type": "string"}}}, {"a" * 90 + "b": 1}),
        ({"patternProperties": {slow: {}}, "additionalProperties": False}, {"a" * 90 + "b": 1}),
    ):
        begin = time.process_time()
        assert not schema_of(schema, "").holds(value)
        assert time.process_time() - begin < 1


def test_properties_by_pattern_are_as_the_library_has_them():
    schema = schema_of(
        {
            "patternProperties": {"^n": {"type": "integer"}},
            "properties": {"a": {}},
            "additionalProperties": {"type": "string"},
        },
        "",
    )
    assert schema.holds({"n1": 1, "a": None, "b": "x"})
    assert not schema.holds({"n1": "1"})
    assert not schema.holds({"b": 1})


def test_formats_are_checked_and_older_drafts_are_read():
    day = schema_of({"$schema": "http://json-schema.org/draft-07/schema#", "type": "string", "format": "date"}, "")
    assert day.holds("2024-02-29")
    assert not day.holds("2023-02-29")
    assert schema_of(True, "").holds(3)
    assert not schema_of("false", "").holds(3)


def test_a_file_holds_one(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(PERSON))
    assert isinstance(schema_in(str(path), "here"), Schema)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"schema\.json: no JSON"):
        schema_in(str(path), "here")
    with pytest.raises(UsageError, match="cannot be read"):
        schema_in(str(tmp_path / "none.json"), "here")
