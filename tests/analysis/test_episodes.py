"""The turns of recorded episodes, of this version, of another, and of files that hold something else."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.analysis import tokens
from cohort.analysis.columns import regular
from cohort.analysis.episodes import TURNS, messages_of, turns_of
from cohort.analysis.store import Run
from cohort.viewer import query
from tests.analysis.stored_run import write_run

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
SAID = [
    {"role": "assistant", "content": "let me see", "tool_calls": [CALL], "call_errors": ["one call is no JSON"]},
    {"role": "tool", "name": "add", "content": "3", "failed": True},
]
TURN = {"start": 0, "end": 2, "reward": 0.1, "messages": json.dumps(SAID), "context": None}


def with_turns(folder: Path, turns: pa.Array, **columns: pa.Array) -> Run:
    """A run of one step whose rollouts have these turns."""
    path = write_run(folder, steps=1, groups=2) / "rollouts" / "step-000001.parquet"
    table = pq.read_table(path).append_column("turns", turns)
    for name, values in columns.items():
        table = table.append_column(name, values)
    pq.write_table(table, path)
    return Run(folder)


def test_a_turn_is_what_was_said_called_and_answered() -> None:
    (turn,) = turns_of([TURN])
    assert (turn["start"], turn["end"], turn["reward"], turn["context"]) == (0, 2, 0.1, None)
    policy, tool = turn["messages"]
    assert policy["text"] == "let me see"
    assert policy["calls"] == [{"name": "add", "arguments": '{"a": 1, "b": 2}'}]
    assert policy["errors"] == ["one call is no JSON"]
    assert (tool["role"], tool["name"], tool["text"], tool["failed"]) == ("tool", "add", "3", True)
    assert not policy["failed"]


@pytest.mark.parametrize("stored", ["{not json", "3", '"text"', '{"role": "user"}'])
def test_what_is_no_list_of_messages_is_shown_as_it_stands(stored: str) -> None:
    assert [each["text"] for each in messages_of(stored)] == [stored]


@pytest.mark.parametrize(
    "odd",
    [[1, "x", None], [{"role": 3, "content": [{"type": "text"}], "tool_calls": "no"}], [{"tool_calls": [None, 4]}]],
)
def test_odd_messages_have_all_that_a_page_asks_for(odd: list) -> None:
    for each in messages_of(json.dumps(odd)):
        assert {"role", "text", "name", "calls", "failed", "errors"} == each.keys()
        assert all(isinstance(call["name"], str) and isinstance(call["arguments"], str) for call in each["calls"])


def test_the_pages_show_turns_and_how_the_episode_ended(tmp_path: Path) -> None:
    turns = pa.array([[TURN, {**TURN, "start": 2, "end": 3}]] * 7 + [None], TURNS)
    ends = pa.array(["turns"] * 7 + ["failed"])
    run = with_turns(tmp_path / "run", turns, end=ends, agent=pa.array(["a"] * 8))
    assert run.problems == []
    page = tokens.view(run, 1, 0)
    assert [turn["start"] for turn in page["turns"]] == [0, 2]
    assert page["rollout"]["end"] == "turns"
    assert "turns" not in page["rollout"]
    assert page["tokens"]
    listed = query.step_rollouts(run, 1, query.Filter())
    assert listed is not None
    first, last = listed["rollouts"][0], listed["rollouts"][-1]
    assert (first["turns"], first["end"], first["agent"]) == (2, "turns", "a")
    assert (last["turns"], last["end"]) == (None, "failed")
    assert "said" not in first
    group = query.group(run, 1, 0)
    assert group is not None
    assert group["rollouts"][0]["said"] == page["turns"]


def test_turns_of_another_version_are_read_and_other_lists_left_out(tmp_path: Path) -> None:
    shorter = pa.array([[{"start": 0, "messages": "[]", "mood": "good"}]] * 8)
    run = with_turns(tmp_path / "other", shorter)
    page = tokens.view(run, 1, 0)
    assert page["turns"] == [{"start": 0, "end": None, "reward": None, "context": None, "messages": []}]
    _, said = regular(pa.table({"turns": pa.array([[1, 2]]), "reward": [1.0]}))
    assert any("`turns`" in each and "left out" in each for each in said)
