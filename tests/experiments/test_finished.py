"""Comparisons of runs that stand on disk."""

from __future__ import annotations

import json
from pathlib import Path

from cohort.analysis.measure import HELD_OUT
from cohort.analysis.store import open_run
from cohort.experiments.compare import compare
from cohort.experiments.comparison import Comparison
from cohort.experiments.finished import grouped
from tests.analysis.comparisons import write_run
from tests.experiments.made import QUIET


def test_finished_runs_are_compared_seeds_of_one_configuration_as_one(done: Comparison, tmp_path: Path) -> None:
    before = json.loads((done.folder / "results.json").read_text())
    runs = sorted(str(path) for path in (done.folder / "runs").iterdir())
    found = compare(runs[2:] + runs[:2], out=tmp_path / "again", samples=2, display=QUIET)
    assert found.findings.entries == ["grpo", "dr-grpo"]
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    key = [(r["measure"], r["entry"], r["value"], r["low"]) for r in before["results"] if r["data"] == HELD_OUT]
    assert [(r["measure"], r["entry"], r["value"], r["low"]) for r in again["results"]] == key
    # The folder of them all does as well.
    assert compare([done.folder], out=tmp_path / "third", samples=2, display=QUIET).findings.entries == [
        "dr-grpo",
        "grpo",
    ]


def test_runs_that_differ_in_a_key_are_named_by_it_and_repeats_are_left_out(tmp_path: Path) -> None:
    runs = [
        open_run(write_run(tmp_path / name, method=method, seed=seed, **config))
        for name, method, seed, config in [
            ("a", "grpo", 0, {"lr": 1e-4}),
            ("b", "grpo", 1, {"lr": 1e-4}),
            ("c", "grpo", 0, {"lr": 1e-5}),
            ("d", "dapo", 0, {}),
            ("e", "grpo", 1, {"lr": 1e-4}),
        ]
    ]
    entries, notes = grouped(runs)
    assert [(e.name, sorted(e.runs)) for e in entries] == [
        ("grpo (lr=0.0001)", [0, 1]),
        ("grpo (lr=1e-05)", [0]),
        ("dapo", [0]),
    ]
    assert len(notes) == 1
    assert f"{tmp_path / 'e'} repeats {tmp_path / 'b'}" in notes[0]


def test_finished_runs_that_cannot_be_measured_are_shown_with_what_they_have(tmp_path: Path) -> None:
    for name, method in (("a", "grpo"), ("b", "dapo")):
        write_run(tmp_path / name, method=method, evaluations=())
    found = compare([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out", display=QUIET)
    assert any(
        "cannot be measured on its evaluation problems: it has no final model" in n for n in found.findings.notes
    )
    assert "accuracy" in found.findings.curves
