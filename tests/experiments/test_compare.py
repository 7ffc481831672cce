"""Comparisons from Python and the command line: what they print, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import cohort
from cohort.experiments.comparison import Comparison
from cohort.experiments.plan import SAMPLES, parse_transfer
from tests.analysis.comparisons import write_run
from tests.cli.command import run as command
from tests.experiments.made import SUMS, refused


def test_from_python_with_rows_and_a_method_made_in_python(options: dict[str, Any], tmp_path: Path) -> None:
    shared = {key: value for key, value in options.items() if key != "data"}
    found = cohort.compare(
        ["grpo", cohort.method("grpo", kl_beta=0.0)],
        data=SUMS,
        eval_data=SUMS[:6],
        seeds=1,
        samples=2,
        quiet=True,
        out=tmp_path / "out",
        **shared,
    )
    assert found.findings.entries == ["grpo", "grpo(kl_beta=0.0)"]
    assert found.failures == {}
    assert len((found.folder / "data.jsonl").read_text().splitlines()) == len(SUMS)


def test_what_cannot_be_compared_is_refused_before_anything_runs(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--model", options["model"], "--data", options["data"], "--reward", "number", "--out", tmp_path / "out"]
    assert "there is no method 'dr-grop'; did you mean 'dr-grpo'" in refused("compare", "grpo", "dr-grop", *given)
    assert "nothing to compare one method with" in refused("compare", "grpo", *given)
    assert "'grpo' stands there twice" in refused("compare", "grpo", "dapo", "grpo", *given)
    assert "there is no key 'group_siz'" in refused("compare", "grpo", "dapo", *given, "--set", "group_siz=3")
    assert "seed differs from run to run" in refused("compare", "grpo", "dapo", *given, "--set", "seed=3")
    assert "--transfer x: write NAME=DATA" in refused("compare", "grpo", "dapo", *given, "--transfer", "x")
    assert "there is no file no.jsonl" in refused("compare", "grpo", "dapo", *given, "--transfer", "x=no.jsonl")
    assert "there is no file no.jsonl" in refused("compare", "grpo", "dapo", *given, "--set", "eval_data=no.jsonl")
    err = refused("compare", "grpo", "dapo", *given[:4], "--reward", "numbr", "--out", tmp_path / "out")
    assert "numbr" in err
    assert "no reward was given" in refused("compare", "grpo", "dapo", *given[:4], "--out", tmp_path / "out")
    assert "group_size" in refused("compare", "grpo", "dapo", *given, "--set", "group_size=1")
    write_run(tmp_path / "runs" / "a")
    assert "cannot be mixed" in refused("compare", "runs/a", "grpo")
    assert "runs/b is no run: there is no such folder; runs near it: " in refused("compare", "runs/a", "runs/b")
    assert "is one run: name another one" in refused("compare", "runs/a")
    assert "steps cannot be set for them" in refused("compare", "runs/a", "runs/a", "--steps", "3")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "already holds something else" in refused("compare", "grpo", "dapo", *given)
    assert parse_transfer(["a=b=c"]) == {"a": "b=c"}
    assert SAMPLES == 16


def test_the_command_prints_means_sentences_and_where_the_report_is(
    done: Comparison, options: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done.folder, out)  # a comparison that was moved is the same one
    sets = [
        f"--set={key}={options[key]}" for key in ("prompts_per_step", "group_size", "max_new_tokens", "lr", "threads")
    ]
    status, printed, err = command(
        "compare",
        "grpo",
        "dr-grpo",
        "--seeds",
        2,
        "--samples",
        2,
        "--steps",
        2,
        "--model",
        options["model"],
        "--data",
        options["data"],
        "--reward",
        "format:[0-4]",
        "--reward",
        "0.5*length",
        *sets,
        "--out",
        out,
    )
    assert status == 0, err
    assert "4 of 4 runs stand there already" in err
    assert "dr-grpo against grpo, pass@1: " in printed
    assert "pass@1, %" in printed
    assert f"the report: {out}/report.html" in printed
