"""Rewards of JSON: syntax, schema, keys, fields."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.errors import UsageError
from cohort.rewards.spec import parse
from cohort.signals import patterns

SCHEMA = {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
TEXTS = [
    '{"a": 1, "b": "x"}',
    '```json\n{"a": 1, "b": "x"}\n```',
    '<think>{"a": 0}</think>{"a": "1", "b": "x"}',
    '{"a": 1}',
    '{"a": 1',
    "[]",
]


def values(reward: str, texts: list[Any], **columns: Any) -> list[float | None]:
    return parse([reward])[0].load()(texts, **columns)


@pytest.mark.parametrize(
    ("reward", "found"),
    [
        ("json", [1, 1, 0, 0, 0, 0]),
        ("json:partial", [1, 1, 0.5, 0.5, 0, 0]),
        ("json:valid", [1, 1, 1, 1, 0, 1]),
        ("json:keys", [1, 1, 1, 0.5, 0, 0]),
        ("json:keys:a, c", [0.5, 0.5, 0.5, 0.5, 0, 0]),
        ("json:bare", [1, 0, 1, 1, 0, 0]),
        ("json:fenced", [0, 1, 0, 0, 0, 0]),
    ],
)
def test_what_is_judged(reward, found, tmp_path):
    assert values(reward, TEXTS, schema=[SCHEMA] * 6) == found
    chat = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert values(reward, chat, schema=[json.dumps(SCHEMA)] * 6) == found
    if reward in ("json", "json:partial"):
        path = tmp_path / "schema.json"
        path.write_text(json.dumps(SCHEMA))
        assert values(f"{reward}:{path}", TEXTS) == found


def test_an_answer_is_compared_as_json():
    answers: list[Any] = [{"b": "x", "a": 1.0}] * 5 + ["[]"]
    assert values("json-answer", TEXTS, answer=answers) == [1, 1, 0, 0, 0, 1]
    assert values("json-answer:partial", TEXTS, answer=answers) == [1, 1, 0.5, 0.5, 0, 1]
    assert values("json-answer:words", TEXTS[:2], answer=['{"a": 1, "b": "x y"}', None]) == [pytest.approx(5 / 6), None]


@pytest.mark.parametrize(
    ("reward", "row", "said"),
    [
        ("json", {}, "lacks"),
        ("json", {"schema": {"type": "objekt"}}, "line 4, column 'schema': no schema"),
        ("json:partial", {"schema": "{"}, "no JSON"),
        ("json:keys", {}, "has no column 'required_keys'"),
        ("json:keys", {"required_keys": "name"}, "has no column 'required_keys'"),
        ("json:keys", {"required_keys": ["name", 3]}, "['name', 3]"),
        ("json:keys", {"schema": 3}, "expected a JSON schema"),
        ("json-answer", {"schema": SCHEMA}, "compares with the column 'answer'"),
        ("json-answer:words", {"answer": "12"}, "compares the fields of an object"),
    ],
)
def test_rows_that_it_cannot_judge_are_told_before_anything_is_drawn(reward, row, said):
    (spec,) = parse([reward])
    with pytest.raises(UsageError, match="line 4") as error:
        spec.check_rows([("line 4", row)])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "reward", ["json:nothing.json", "json:keys:a,,b", "json:partial:nothing.json", "json-answer:all"]
)
def test_arguments_that_it_cannot_use_are_told(reward):
    with pytest.raises(UsageError, match="reward 'json"):
        parse([reward])[0].load()


@pytest.mark.parametrize(
    ("reward", "row"),
    [
        ("json:valid", {}),
        ("json:keys:a", {}),
        ("json:keys", {"required_keys": '["a"]'}),
        ("json:keys", {"schema": SCHEMA}),
        ("json", {"schema": json.dumps(SCHEMA)}),
        ("json-answer", {"answer": 3}),
        ("json-answer:words", {"answer": '{"a": 1}'}),
    ],
)
def test_rows_that_it_can_judge_are_let_through(reward, row):
    parse([reward])[0].check_rows([("line 4", row)])


def test_a_batch_of_pathological_values_ends(monkeypatch):
    monkeypatch.setattr(patterns, "BATCH", 0.5)
    schema = {"properties": {"a": {"pattern": "^(x|xx)+$"}}}
    texts = [json.dumps({"a": "x" * 90 + "y"})] * 60 + ['{"a": "xx"}']
    begin = time.process_time()
    assert values("json", texts, schema=[schema] * 61) == [0.0] * 60 + [1.0]
    assert time.process_time() - begin < 3


@given(st.sampled_from(TEXTS) | st.text(max_size=20))
def test_only_an_object_that_is_right_in_all_reaches_the_sum_of_the_weights(text):
    rewards = ["json:valid", "json:keys", "0.5*json:bare", "0.5*json-answer:words", "0.25*length-limit:10"]
    for ids, top in (([0] * 10, text in (TEXTS[0], TEXTS[2])), ([0] * 11, False)):
        total = 0.0
        for spec in parse(rewards):
            (value,) = spec.load()([text], completion_ids=[ids], answer=[{"a": 1, "b": "x"}], schema=[SCHEMA])
            assert 0.0 <= value <= 1.0
            total += spec.weight * value
        assert (total == 3.25) == top
