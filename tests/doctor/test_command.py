"""`cohort doctor`: what it prints and how it refuses."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import run
from tests.doctor.synthetic import Shape, line, write_run

CUT = Shape(steps=20, record_every=5, truncated=line(0.5, 0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "runs" / "cut", CUT)


def test_it_prints_what_where_why_and_what_to_try(folder):
    status, out, err = run("doctor", folder)
    assert (status, err) == (0, "")
    assert out.startswith("cut after 20 steps: 1 alarm; ")
    for part in (
        "ALARM",
        "cut off at the limit of 64 tokens",
        "[truncation]",
        "#/run/cut/metric/completion/truncated",
        "Meaning: ",
        "max_new_tokens",
        "`dapo`",
        "Source: DAPO, arXiv:2503.14476",
        "Not looked at",
    ):
        assert part in out


def test_a_run_under_runs_is_found_by_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert run("doctor", "cut")[1].startswith("cut after 20 steps")


def test_strict_fails_where_there_is_an_alarm(folder, tmp_path):
    assert run("doctor", folder, "--strict")[0] == 1
    assert run("doctor", write_run(tmp_path / "well", Shape(steps=20)), "--strict")[0] == 0


def test_json_is_one_object(folder):
    status, out, err = run("doctor", folder, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert set(report) == {"name", "findings", "missing", "made", "problems", "steps"}
    (finding,) = report["findings"]
    assert set(finding) == {"severity", "name", "what", "evidence", "meaning", "tries", "source"}
    assert (finding["name"], finding["severity"]) == ("truncation", "alarm")
    assert finding["evidence"][0]["numbers"]["share"] > 0.3
    assert finding["evidence"][0]["where"] == "#/run/cut/metric/completion/truncated"


def test_an_unknown_run_is_refused_with_those_near_it(folder):
    status, out, err = run("doctor", folder.parent / "cat")
    assert (status, out) == (2, "")
    assert "there is no such folder" in err
    assert str(folder) in err


def test_a_run_and_data_are_not_looked_at_together(folder):
    assert "name either a run or --data" in run("doctor", folder, "--data", "x.jsonl")[2]
    assert "name a run's folder, or data" in run("doctor")[2]


def test_data_is_looked_at_before_a_run(tmp_path):
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(30)] + [{"prompt": "1 + 1 =", "answer": ""}]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = run("doctor", "--data", path, "--reward", "number")
    assert (status, err) == (0, "")
    assert "WARNING  3.2 % of the rows cannot be answered  [unanswerable]" in out
    assert "line 31" in out
