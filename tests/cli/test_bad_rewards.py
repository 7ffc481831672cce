"""Rewards that no run can be made of are told before anything is loaded or drawn, with what to do."""

from __future__ import annotations

import pytest

from cohort.rewards.builtin import KINDS
from tests.cli.command import run, write

ASKED = {"prompt": "2+2=", "answer": "4", "completion": "4"}
BARE = {"prompt": "2+2=", "completion": "4"}
# Reward, row, and what is said.
BAD = [
    ("mathh", ASKED, "did you mean math?"),
    ("length:x", ASKED, "write length or length:N, with N a number of tokens"),
    ("format:(", BARE, "no regular expression: missing )"),
    ("task", ASKED, "for other data use number or math"),
    ("code", BARE, "name them in one of these columns: tests, test_code"),
    ("code", {**BARE, "tests": "nonsense"}, "no program can pass its tests"),
    (
        "code",
        {**BARE, "tests": [{"input": "1", "output": x} for x in "23"]},
        "for the input '1' they expect '2' and '3'",
    ),
    ("code:partal", {**BARE, "tests": [{"input": "1", "output": "2"}]}, "did you mean code:partial?"),
    ("json", BARE, "add it, or name one for all rows, as json:schema.json"),
    ("json", {**BARE, "schema": {"type": "objct"}}, "column 'schema': no schema at type"),
    ("json:gone.json", BARE, "the schema 'gone.json' cannot be read"),
    ("regex", BARE, "add it, or write one for all rows, as regex:PATTERN"),
    ("ranking", BARE, "reads the column 'items'"),
    ("boxes", BARE, "reads the column 'boxes'"),
    ("citations", BARE, "reads the column 'citations'"),
    ("first-error", ASKED, "reads the column 'steps'"),
    ("judge:quality", ASKED, "write PROMPT@MODEL"),
    ("judge:qualty@http://127.0.0.1:9/v1", ASKED, "did you mean quality?"),
    ("rm:", ASKED, "name a model, as in rm:MODEL"),
    ("rm:/there/is/none", ASKED, "no such folder"),
]


@pytest.mark.parametrize(("reward", "row", "says"), BAD)
def test_what_no_run_can_be_made_of_is_told(here, reward, row, says):
    data = write(here / "d.jsonl", [row])
    status, out, err = run("score", "--data", data, "--reward", reward)
    assert (status, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize(("reward", "row", "says"), [BAD[6], BAD[9], BAD[12]])
def test_it_is_told_before_the_model_is_loaded_and_by_the_doctor(here, reward, row, says):
    data = write(here / "d.jsonl", [row])
    for command in (["train", "grpo", "--model", "/there/is/none/either"], ["doctor"]):
        status, out, err = run(*command, "--data", data, "--reward", reward)
        assert (status, out) == (2, "")
        assert says in err.splitlines()[-1]
    assert not (here / "runs").exists()


@pytest.mark.parametrize("name", sorted(name for name, kind in KINDS.items() if kind.columns))
def test_columns_that_a_reward_reads_are_named_where_they_are_lacking(here, name):
    data = write(here / "d.jsonl", [{"completion": "4"}])
    status, _, err = run("score", "--data", data, "--reward", KINDS[name].forms[0].split(":")[0])
    assert status == 2
    assert "line 1" in err
