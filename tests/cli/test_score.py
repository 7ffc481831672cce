"""`cohort score`: rewards of completions in a file."""

from __future__ import annotations

import json
import os
import threading

import pytest

from tests.cli.command import run, write

COMPLETED = [
    {"prompt": "2+2=", "completion": "4", "answer": "4"},
    {"prompt": "2+3=", "completion": ["5", "2+3=5", "6"], "answer": "5"},
    {"prompt": "2+4=", "completion": [{"role": "assistant", "content": "it is 7"}], "answer": "6"},
    {"prompt": "?", "completion": "7", "answer": "none"},
]


def test_score_prints_an_object_a_completion(here):
    data = write(here / "done.jsonl", COMPLETED)
    status, out, err = run("score", "--data", data, "--reward", "number", "--reward", "0.5*format:=")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"row": 1, "sample": 0, "reward": 1.0, "number": 1.0, "format": 0.0},
        {"row": 2, "sample": 0, "reward": 1.0, "number": 1.0, "format": 0.0},
        {"row": 2, "sample": 1, "reward": 1.5, "number": 1.0, "format": 1.0},
        {"row": 2, "sample": 2, "reward": 0.0, "number": 0.0, "format": 0.0},
        {"row": 3, "sample": 0, "reward": 0.0, "number": 0.0, "format": 0.0},
        {"row": 4, "sample": 0, "reward": 0.0, "number": None, "format": 0.0},
    ]
    assert err.splitlines() == [
        f"{data}: 1 of 4 rows have an answer that is no number (line 4): the reward 'number' does not apply to them",
        "6 completions; mean reward 0.5833, number 0.6, format 0.1667",
    ]


def test_score_shows_what_counts_of_each_component(here):
    data = write(here / "done.jsonl", COMPLETED[1:3])
    command = ["score", "--data", data, "--reward", "number", "--reward", "form=format:=", "--reward", "length:4"]
    composed = ["--reward-gate", "length if number and form", "--reward-clip", "number 0..0.5"]
    scheduled = ["--reward-schedule", "length 0:0 100:2"]
    status, out, err = run(*command, *composed, *scheduled, "--step", 50)
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[1] == {
        "row": 1,
        "sample": 1,
        "reward": 0.5 + 1.0 + 0.75,
        "number": 0.5,
        "form": 1.0,
        "length": 0.75,
        "raw/number": 1.0,
        "raw/form": 1.0,
        "raw/length": 0.75,
        "weight/number": 1.0,
        "weight/form": 1.0,
        "weight/length": 1.0,
    }
    assert [row["length"] for row in rows] == [0.0, 0.75, 0.0, 0.0]
    assert err.splitlines() == [
        "number: weight 1, mean 0.5 before gates and ranges, 0.25 after",
        "form: weight 1, mean 0.25 before gates and ranges, 0.25 after",
        "length: weight 1, mean 0.625 before gates and ranges, 0.1875 after",
        "4 completions; mean reward 0.6875, number 0.25, form 0.25, length 0.1875",
    ]
    # Without a step the weights are those at the end.
    status, out, _ = run(*command, *scheduled)
    assert json.loads(out.splitlines()[0])["weight/length"] == 2.0


def test_score_writes_a_file(here):
    data = write(here / "done.jsonl", COMPLETED[:2])
    status, out, _ = run("score", "--data", data, "--reward", "exact", "--json", here / "scores.jsonl")
    assert (status, out) == (0, "")
    rows = [json.loads(line) for line in (here / "scores.jsonl").read_text().splitlines()]
    assert [row["exact"] for row in rows] == [1.0, 1.0, 0.0, 0.0]


def test_score_takes_other_columns_and_well_known_data(here):
    data = write(here / "a.jsonl", [{"question": "q", "answer": "I count.\n#### 2", "said": "2"}])
    status, out, _ = run("score", "--data", data, "--reward", "exact", "--completion-field", "said")
    assert (status, json.loads(out)["exact"]) == (0, 1.0)
    data = write(here / "b.jsonl", [{"task": "q", "gold": "2", "completion": "2"}])
    fields = ["--prompt-field", "task", "--answer-field", "gold"]
    status, out, _ = run("score", "--data", data, "--reward", "exact", *fields)
    assert (status, json.loads(out)["exact"]) == (0, 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--completion-field", "said"], "done.jsonl, line 1: there is no column 'said' (it has prompt, completion"),
        (["--answer-field", "gold"], "done.jsonl, line 1: there is no column 'gold' (it has prompt, completion"),
        (["--prompt-field", "task"], "done.jsonl, line 1: there is no column 'task'"),
        (["--reward", "numbr"], "there is no reward 'numbr'"),
        (["--on-reward-error", "ignore"], "--on-reward-error ignore: Input should be 'stop', 'zero' or 'skip'"),
        (["--data", "gone.jsonl"], "there is no file gone.jsonl"),
        (
            ["--reward-gate", "number if form"],
            "reward_gate 'number if form': there is no reward 'form' here (there are: num",
        ),
        (["--reward-clip", "number 1..0"], "reward_clip 'number 1..0': the range is empty"),
        (["--step", "3"], "--step asks for the weights after so many steps: that takes a --reward-schedule"),
    ],
)
def test_score_refuses_with_status_2(here, options, says):
    write(here / "done.jsonl", COMPLETED)
    status, out, err = run("score", "--data", "done.jsonl", "--reward", "number", *options)
    assert (status, out) == (2, "")
    assert err.startswith("cohort: ")
    assert says in err
    assert "Traceback" not in err


def test_score_refuses_what_is_no_completion_and_rows_without_answers(here):
    for completion in (None, 5, {"content": "x"}, ["x", 5]):
        data = write(here / "odd.jsonl", [COMPLETED[0], {"completion": completion, "answer": "1"}])
        status, out, err = run("score", "--data", data, "--reward", "number")
        assert (status, out) == (2, "")
        assert "odd.jsonl, line 2: a completion must be a text or messages, not" in err
    data = write(here / "bare.jsonl", [{"completion": "1"}])
    status, _, err = run("score", "--data", data, "--reward", "number")
    assert status == 2
    assert "the reward 'number' compares with the column 'answer'" in err


def test_score_does_with_failures_as_asked(here):
    (here / "mine.py").write_text("def picky(completions):\n    return [1 / (c != 'bad') for c in completions]\n")
    write(here / "done.jsonl", [{"completion": ["good", "bad", "good"]}])
    command = ["score", "--data", "done.jsonl", "--reward", "mine.py:picky"]
    for choice, value in (("zero", 0.0), ("skip", None)):
        status, out, _ = run(*command, "--on-reward-error", choice)
        assert status == 0
        assert [json.loads(line)["picky"] for line in out.splitlines()] == [1.0, value, 1.0]
    status, out, err = run(*command)
    assert (status, out) == (3, "")
    assert "reward 'picky' failed on done.jsonl, line 1 (prompt '', completion 'bad'): ZeroDivisionError" in err


def test_score_says_how_good_each_reward_is_by_labels(here):
    rows = [
        {"answer": "0.5", "completion": [r"\boxed{\frac12}", r"\boxed{2}"], "right": [1, 0]},
        {"answer": "1/3", "completion": r"\boxed{0.333333}", "right": False},
        {"answer": "7", "completion": "it is 7", "right": True},
        {"answer": "7", "completion": "it is 8", "right": None},
    ]
    (here / "mine.py").write_text(
        "def knows(completions, right=None):\n    return [float(right is not None)] * len(completions)\n"
    )
    data = write(here / "graded.jsonl", rows)
    command = ["score", "--data", data, "--labels", "right", "--reward", "math", "--reward", "strict=math:strict"]
    status, out, err = run(*command, "--reward", "mine.py:knows", "--json", "rows.jsonl")
    assert status == 0, err
    loose, strict, told = (json.loads(line) for line in out.splitlines())
    assert (loose["reward"], loose["count"], loose["recall"], loose["false_positive_rate"]) == ("math", 4, 1.0, 0.5)
    assert (strict["reward"], strict["recall"], strict["precision"]) == ("strict", 0.5, 1.0)
    # No reward is given the labels; and of one that accepts nothing the precision is not defined.
    assert (told["precision"], told["f1"], told["recall"]) == (None, None, 0.0)
    written = [json.loads(line) for line in (here / "rows.jsonl").read_text().splitlines()]
    assert [row["label"] for row in written] == [True, False, False, True, None]


def test_score_refuses_labels_that_are_none(here):
    for label, says in (
        ("maybe", "the label 'maybe' in 'right' is none"),
        ([1], "1 labels in 'right' for 2 completions"),
    ):
        data = write(here / "graded.jsonl", [{"answer": "1", "completion": ["1", "2"], "right": label}])
        status, out, err = run("score", "--data", data, "--reward", "number", "--labels", "right")
        assert (status, out) == (2, "")
        assert says in err
    status, _, err = run("score", "--data", data, "--reward", "number", "--labels", "truth")
    assert status == 2
    assert "there is no column 'truth' (it has answer, completion, right)" in err


def test_score_writes_to_a_pipe_as_it_is(here):
    data = write(here / "done.jsonl", COMPLETED[:1])
    os.mkfifo(here / "pipe")
    said = []
    reader = threading.Thread(target=lambda: said.append((here / "pipe").read_text()), daemon=True)
    reader.start()
    status, out, err = run("score", "--data", data, "--reward", "number", "--json", "pipe")
    reader.join(30)
    assert (status, out) == (0, ""), err
    assert [json.loads(line)["number"] for line in said[0].splitlines()] == [1.0]
    assert (here / "pipe").is_fifo()
