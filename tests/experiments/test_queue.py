"""What a queue of runs runs, what it skips, and how it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cohort.analysis.measure import HELD_OUT, evaluated_as, read_evaluation
from cohort.analysis.store import open_run
from cohort.errors import UsageError
from cohort.experiments import measuring, queue
from cohort.experiments.compare import compare
from cohort.experiments.comparison import Comparison
from cohort.training.config import make_config
from tests.experiments.made import QUIET, SUMS, started, stub


def test_every_method_runs_with_every_seed_on_the_same_prompts_and_problems(
    done: Comparison, options: dict[str, Any]
) -> None:
    names = sorted(path.name for path in (done.folder / "runs").iterdir())
    assert names == [f"{m}-seed{s}" for m in ("dr-grpo", "grpo") for s in (0, 1)]
    assert (done.failures, done.stopped, done.findings.entries) == ({}, False, ["grpo", "dr-grpo"])
    prompts, problems = {}, {}
    for name in names:
        run = open_run(done.folder / "runs" / name)
        assert (run.config["steps"], run.summary["stopped"]) == (2, False)
        table = run.rollouts(1, ["prompt", "completion"])
        assert table is not None
        # Until the first update, methods with one seed draw the same rollouts of the same prompts.
        prompts[name] = table.to_pydict()
        problems[name] = read_evaluation(run.folder, HELD_OUT)
    assert prompts["grpo-seed0"] == prompts["dr-grpo-seed0"] != prompts["grpo-seed1"]
    assert len({tuple(each.ids) for each in problems.values()}) == 1
    held = {row["prompt"] for row in map(json.loads, (done.folder / "held-out.jsonl").read_text().splitlines())}
    assert len(held) == len(problems["grpo-seed0"].ids) == len(SUMS) // 5
    assert not any(question in text for each in prompts.values() for text in each["prompt"] for question in held)


def test_further_data_is_measured_and_reported_the_same_way(done: Comparison) -> None:
    assert done.findings.data == [HELD_OUT, "sums"]
    found = {(r.data, r.entry) for r in done.findings.results if r.measure == "pass@2"}
    assert found == {(data, entry) for data in (HELD_OUT, "sums") for entry in ("grpo", "dr-grpo")}
    assert "Results on sums" in done.report.read_text()


def test_the_same_call_does_nothing_again_and_a_wider_one_only_what_is_new(
    done: Comparison, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path("out")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(done.folder, out)
    plan = json.loads((out / "compare.json").read_text())
    trained: list[tuple[int, str]] = []
    measured: list[int] = []
    real_train, real_measure = queue.train, measuring.evaluate_model
    stubbed = stub(trained)

    def train(config: Any, **others: Any) -> Any:
        if config.seed == 2:
            return stubbed(config, **others)
        trained.append((config.seed, config.method))
        return real_train(config, **others)

    def measure(config: Any, **others: Any) -> Any:
        measured.append(config.seed)
        return real_measure(make_config(config.given(), {"model": options["model"]}), **others)

    monkeypatch.setattr(queue, "train", train)
    monkeypatch.setattr(measuring, "evaluate_model", measure)
    started(options, out)
    assert (trained, measured) == ([], [])
    # One more seed of everything, one run that was only half there, and one evaluation that was lost.
    run = out / "runs" / "grpo-seed1"
    (run / "summary.json").unlink()
    (out / "runs" / "dr-grpo-seed0" / "evaluation" / f"{HELD_OUT}.parquet").unlink()
    found = started(options, out, seeds=3)
    assert trained == [(1, "grpo"), (2, "grpo"), (2, "dr-grpo")]
    assert measured == [0, 2, 2]
    assert {len([r for r in found.findings.runs if r["entry"] == name]) for name in found.findings.entries} == {3}
    assert json.loads((out / "compare.json").read_text())["asked"] == plan["asked"]
    # Another number of completions is another measurement of the same runs.
    started(options, out, samples=3)
    assert len(trained) == 3
    stored = evaluated_as(run, HELD_OUT)
    assert stored is not None
    assert stored["samples"] == 3
    with pytest.raises(UsageError, match=r"other settings: steps \(was 2, now 3\), lr \(was 0.001, now 0.01\)"):
        started({**options, "steps": 3, "lr": 0.01}, out)


def test_an_interrupted_queue_stops_and_goes_on(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[int, str]] = []
    monkeypatch.setattr(queue, "train", stub(order, {2: KeyboardInterrupt()}))
    first = started(options, tmp_path / "out", samples=0)
    assert first.stopped
    assert first.findings.entries == ["grpo"]
    assert not started(options, tmp_path / "out", samples=0).stopped
    # All methods with a seed before any with the next; what was finished is not run again.
    assert order == [(0, "grpo"), (0, "dr-grpo"), (0, "dr-grpo"), (1, "grpo"), (1, "dr-grpo")]


def test_a_run_that_fails_is_named_and_the_others_go_on(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "train", stub([], {2: RuntimeError("out of memory")}))
    found = started(options, tmp_path / "out", samples=0)
    assert found.failures == {"dr-grpo seed 0": "RuntimeError: out of memory"}
    assert [(r["entry"], r["seed"]) for r in found.findings.runs] == [("grpo", 0), ("grpo", 1), ("dr-grpo", 1)]
    assert "dr-grpo seed 0: RuntimeError: out of memory" in found.findings.notes
    assert any("different numbers of runs: grpo 2, dr-grpo 1" in note for note in found.findings.notes)


def test_a_budget_of_tokens_ends_each_run(options: dict[str, Any], tmp_path: Path) -> None:
    found = compare(
        ["grpo", "mc-grpo"],
        options={**options, "steps": 50, "eval_every": 0},
        seeds=1,
        tokens=150,
        samples=0,
        out=tmp_path / "out",
        display=QUIET,
    )
    for row in found.findings.runs:
        run = open_run(row["folder"])
        tokens = [each["tokens"] for each in run.metrics]
        assert run.summary["steps"] == len(tokens) < 50
        assert tokens[-2] < 150 <= tokens[-1] == run.summary["sampled_tokens"]
        assert run.metrics[-1]["tokens_trained"] > 0
        assert run.summary["peak_memory"] > 10**7
    # Five rollouts a prompt instead of four: fewer steps for the same tokens.
    grpo, mc = (row["steps"] for row in found.findings.runs)
    assert mc < grpo
