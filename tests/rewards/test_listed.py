"""Rewards of sets, rankings, boxes and citations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.spec import parse


def values(reward: str, texts: list[str], **columns: Any) -> list[float | None]:
    found = parse([reward])[0].load()(texts, **columns)
    assert parse([reward])[0].load()([[{"role": "assistant", "content": text}] for text in texts], **columns) == found
    return found


def test_sets():
    said = ["green; red", "<answer>red, green, blue</answer>", "red", ""]
    assert values("set", said, answer=[["red", "Green"]] * 4) == [1, 0, 0, 0]
    assert values("set:partial", said, answer=["red, green"] * 4) == [1, 0.8, pytest.approx(2 / 3), 0]
    assert values("set", ["red"], answer=[None]) == [None]


def test_rankings():
    said = "<think>Up</think>\n1. Heat (1995)\n2. Alien\n3. Up\n"
    columns = {"items": [["up", "heat (1996)"]]}
    gain = 1 + 1 / math.log2(4)
    best = 1 + 1 / math.log2(3)
    assert values("ranking:dcg", [said], **columns) == [pytest.approx(gain)]
    assert (
        values("ranking", [said], **columns)
        == values("ranking:ndcg@5", [said], **columns)
        == [pytest.approx(gain / best)]
    )
    assert values("ranking:ndcg@1", [said], **columns) == values("ranking:@1", [said], **columns) == [1.0]
    assert values("ranking:recall@2", [said], **columns) == [0.5]
    assert values("ranking:precision@5", [said], **columns) == [pytest.approx(2 / 5)]
    assert values("ranking:mrr", [said], seen=[["Heat"]], **columns) == [pytest.approx(1 / 3)]
    assert values("ranking", [""], items=['["Up"]']) == [0.0]


def test_boxes():
    said = ["<think>[9,9,9,9]</think>[0, 0, 2, 2]", "[0,0,2,1] and [50,50,60,60]", "none"]
    gold = [[[0, 0, 2, 2]]] * 3
    assert values("boxes", said, boxes=gold) == [1.0, 0.25, 0.0]
    assert values("boxes:0.5", said, boxes=gold) == [1.0, pytest.approx(2 / 3), 0.0]
    assert values("boxes", ["none", "[0,0,1,1]"], boxes=[[], "[]"]) == [1.0, 0.0]
    thought = "<think>1,2,3,4 and 5,6,7,8</think><rethink>"
    assert values("boxes:thought", [thought] * 3 + ["1,2,3,4"], count=[2, 3, None, 1]) == [1.5, 0.5, 0.5, 0.0]


def test_citations():
    sources = [["The tower is 330 m tall.", "It is of iron."]] * 2
    said = ['It is "330 m tall" [1], of iron [2].', "<think>[1]</think>iron [2][5]"]
    assert values("citations", said, citations=[[1, 2], [1, 2]]) == [1.0, 0.5]
    assert values("citations:known", said, sources=sources) == [1.0, 0.5]
    assert values("citations:quotes", said, sources=sources) == [1.0, 0.0]
    assert values("citations", ["no source", "[1]"], citations=[[], []]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "row", "said"),
    [
        ("set", {}, "compares with the column 'answer'"),
        ("set", {"answer": {"a": 1}}, "json-answer compares objects"),
        ("text", {"answer": {"a": 1}}, "json-answer compares objects"),
        ("ranking", {}, "reads the column 'items'"),
        ("ranking", {"items": "Up"}, "must be a list of titles"),
        ("ranking", {"items": []}, "must be a list of titles"),
        ("boxes", {"answer": "3"}, "reads the column 'boxes'"),
        ("boxes", {"boxes": [[1, 2, 3]]}, "must be a list of [x1, y1, x2, y2]"),
        ("citations", {}, "reads the column 'citations'"),
        ("citations", {"citations": [0]}, "must be a list of numbers"),
        ("citations:quotes", {"sources": "one"}, "must be a list of texts"),
    ],
)
def test_rows_that_it_cannot_judge_are_told(reward, row, said):
    (spec,) = parse([reward])
    with pytest.raises(UsageError, match="line 2") as error:
        spec.check_rows([("line 2", row)])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "reward",
    [
        "ranking:best",
        "ranking:ndcg@0",
        "ranking:ndcg@x",
        "boxes:2",
        "boxes:0",
        "boxes:half",
        "citations:all",
        "set:all",
    ],
)
def test_what_cannot_be_made_is_refused(reward):
    with pytest.raises(UsageError, match=r"reward '"):
        parse([reward])[0].load()
