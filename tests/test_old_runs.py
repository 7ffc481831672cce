"""Runs that earlier versions left are read as those versions read them.

`samples/run-0.1/` was written by the version before configurations had sections; its README says how. `expected.json` is what
`told` gave with the code of that version.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

import cohort
from cohort.analysis import tokens
from cohort.analysis.store import open_run
from cohort.analysis.tokenizers import pieces
from cohort.doctor import examine
from cohort.experiments.finished import compare_runs
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.viewer import server
from cohort.viewer.run_index import RunIndex

SAMPLE = Path(__file__).parent / "samples" / "run-0.1"
EXPECTED = SAMPLE / "expected.json"
# What a page says of the machine it was asked on.
OF_THE_MACHINE = {"folder", "written"}
# Diagnoses that came since, and read metrics that came with them.
SINCE = {"outer-step-large", "verifier-gap"}
# A rollout that was trained on and one that a filter removed: (step, row).
LOOKED_AT = ((12, 27), (12, 0))


def told(folder: Path) -> dict[str, Any]:
    """All that the readers say of a run, as plain values; of texts about methods and diagnoses what has numbers."""
    run = open_run(folder)
    ask = TestClient(server.application(RunIndex([folder])))

    def page(name: str, **asked: Any) -> Any:
        answer = ask.get(f"/api/{name}", params={"run": run.name, **asked})
        assert answer.status_code == 200, answer.text
        return answer.json()

    (head,) = ask.get("/api/runs").json()
    looked_at = {}
    for step, row in LOOKED_AT:
        view = tokens.view(run, step, row)
        looked_at[f"{step}/{row}"] = {
            "view": {key: value for key, value in view.items() if key != "tokens"},
            "tokens": view["tokens"][1:3],
            "colourings": [[c["name"], c["kind"], c["low"], c["high"], c["center"]] for c in tokens.colourings(view)],
            "lines": [without_sources(line) for line in tokens.explain(run, view, 1)],
            "page": {
                key: page("tokens", step=step, row=row)[key] for key in ("pieces", "recorded", "sampled", "group")
            },
            "token": page("token", step=step, row=row, token=1)["piece"],
        }
    report = examine(run)
    return {
        "config": run.config,
        "problems": run.problems,
        "steps": run.steps(),
        "summary": run.summary["accuracy_after"],
        "head": {key: value for key, value in head.items() if key not in OF_THE_MACHINE},
        "metrics": {name: column[-1] for name, column in page("metrics")["values"].items()},
        "configurations": {row["key"]: row["values"][run.name] for row in page("configurations")},
        "rollouts": page("rollouts", step=12, correct=True)["rollouts"][:2],
        "search": [[each["step"], each["row"]] for each in page("search", trained=False)["rollouts"]],
        "group": page("group", step=1, group=1)["mean"],
        "axes": [[axis["axis"], axis["source"], axis["paper"]] for axis in tokens.axes(run)],
        "looked_at": looked_at,
        "doctor": {
            "findings": [[f.severity, f.name, [numbers(e.numbers) for e in f.evidence]] for f in report.findings],
            "missing": sorted(report.missing),
            "made": report.made,
            "problems": list(report.problems),
        },
    }


def without_sources(line: str) -> str:
    """A line about a token without the names of functions and papers."""
    return re.sub(r" \[[^]]*\]", "", line)


def numbers(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in values.items()}


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, in the folder that its relative paths start from."""
    shutil.copytree(SAMPLE, tmp_path / "sample")
    monkeypatch.chdir(tmp_path / "sample")
    return tmp_path / "sample"


@pytest.mark.parametrize("form", ["as it was written", "with sections"])
def test_every_reader_says_of_an_old_run_what_it_said_then(form: str, sample: Path) -> None:
    if form == "with sections":
        config = sample / "letters" / "config.yaml"
        held = yaml.safe_load(config.read_text())
        # But for keys and sections that came since.
        sections = {
            name: {key: value for key, value in each.items() if key in held or name in held}
            if isinstance(each, dict)
            else each
            for name, each in make_config(held).sections().items()
        }
        sections = {name: each for name, each in sections.items() if each != {}}
        assert sections["sampling"]["top_p"] == held["top_p"]
        config.write_text(yaml.safe_dump(sections))
    found = json.loads(json.dumps(told(sample / "letters"), allow_nan=False))
    expected = json.loads(EXPECTED.read_text())
    assert found.keys() == expected.keys()
    # Further diagnoses came since, some of which need what such runs did not write.
    found["doctor"]["missing"] = [name for name in found["doctor"]["missing"] if name not in SINCE]
    assert found["doctor"].pop("made") >= expected["doctor"].pop("made")
    for name, value in expected.items():
        assert as_then(found[name], value) == value, name


def as_then(found: Any, expected: Any) -> Any:
    """What is told, without keys that came since and that an old run has nothing for."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return {
            key: as_then(value, expected.get(key))
            for key, value in found.items()
            if key in expected or value not in (None, [], {})
        }
    if found == [] and expected is None:
        return None  # what took one text or none takes a list now
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [as_then(one, other) for one, other in zip(found, expected, strict=True)]
    return found


def test_tokens_of_an_old_run_have_texts_also_where_none_were_recorded(sample: Path) -> None:
    assert pieces(open_run(sample / "letters"), [20, 21]) == ["e", "f"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_old_comparison_stands_complete_and_is_reported_alike(sample: Path) -> None:
    before = {name: table(sample / "compared" / name) for name in ("results.csv", "differences.csv", "runs.csv")}
    found = cohort.compare(
        ["grpo", "dr-grpo"],
        seeds=2,
        steps=3,
        model="model",
        data="letters.jsonl",
        eval_data="letters.jsonl",
        reward=["number"],
        samples=4,
        out="compared",
        quiet=True,
        max_new_tokens=8,
        lr=2e-3,
        show_every=0,
        tensorboard=False,
        prompts_per_step=4,
        group_size=4,
    )
    assert found.failures == {}
    assert {name: table(sample / "compared" / name) for name in before} == before
    assert (sample / "compared" / "report.html").is_file()
    # Nothing was trained: there is no model to train.
    assert not (sample / "model").exists()


def test_old_runs_are_compared_by_their_folders(sample: Path) -> None:
    folders = sorted((sample / "compared" / "runs").iterdir())
    found = compare_runs(folders, sample / "again", 0, {}, None, Display(quiet=True))
    assert sorted(found.findings.entries) == ["dr-grpo", "grpo"]
    by_measure = {(r.measure, r.entry): r.estimate.value for r in found.findings.results if r.data == "held-out"}
    for row in table(sample / "compared" / "results.csv"):
        assert by_measure[row["measure"], row["entry"]] == pytest.approx(float(row["value"]), abs=1e-12)
