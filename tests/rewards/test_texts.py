"""Rewards of words, tags, repetition and length."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.spec import parse


def values(reward: str, texts: list[str], **columns: Any) -> list[float | None]:
    found = parse([reward])[0].load()(texts, completion_ids=columns.pop("completion_ids", None), **columns)
    chat = [[{"role": "assistant", "content": text}] for text in texts]
    assert parse([reward])[0].load()(chat, completion_ids=None, **columns) == found or "completion_ids" in columns
    return found


def test_text_compares_words_with_any_spelling_that_is_right():
    said = ["The Eiffel tower.", "<answer>eiffel  TOWER</answer>", "<think>Eiffel tower</think> Louvre", "tower eiffel"]
    assert values("text", said, answer=["Eiffel Tower"] * 4) == [1, 1, 0, 0]
    assert values("text", said[:2], answer=[["Tour Eiffel", "Eiffel tower"], None]) == [1, None]
    assert values("text:partial", ["a red car", "car"], answer=["the red car"] * 2) == [1.0, pytest.approx(2 / 3)]


def test_bleu_reads_what_follows_the_first_tag():
    assert values("bleu", ["<answer> the red car", "the red car", "x <answer>red"], answer=["the red car"] * 3) == [
        1.0,
        0.0,
        pytest.approx(0.1353352832),
    ]
    assert values("bleu", ["<answer>x"], answer=[None]) == [None]


def test_tags_count():
    assert values("tags:answer", ["<answer>1", "<answer>1<answer>", "1"]) == [1.0, 0.5, 0.0]
    assert values("tags:think,answer", ["<think>a b</think><answer>3</answer>", "<think>a</think>", ""]) == [
        1.0,
        0.4,
        0.0,
    ]


def test_variety_reads_tokens_where_they_are_known():
    text = " ".join("abcdefgh" * 4)
    assert values("variety", [text]) == [pytest.approx(1 - 17 / 24 - 1)]
    assert values("variety:2", ["a b a b", "a b c d"]) == [pytest.approx(1 - 0.5 - 1), 1.0]
    ids = [list(range(32))]
    assert parse(["variety"])[0].load()([text], completion_ids=ids) == [pytest.approx(7 / 24)]


def test_a_length_limit_falls_from_the_limit_to_twice_as_much():
    ids = [[0] * n for n in (0, 10, 15, 20, 40)]
    found = [1.0, 1.0, 0.5, 0.0, 0.0]
    assert parse(["length-limit:10"])[0].load()(["x"] * 5, completion_ids=ids) == found
    assert parse(["length-limit"])[0].load()(["x"] * 5, completion_ids=ids, max_new_tokens=[20] * 5) == found
    with pytest.raises(ValueError, match="length-limit:N"):
        values("length-limit", ["x"])


@pytest.mark.parametrize(
    "reward", ["variety:0", "variety:many", "length-limit:-1", "tags:<a>", "tags:", "text:half", "bleu:4"]
)
def test_what_cannot_be_made_is_refused(reward):
    with pytest.raises(UsageError, match=r"reward '"):
        parse([reward])[0].load()
