"""Comparisons that train: what runs, what is skipped, what goes on, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cohort
from cohort.analysis.measure import HELD_OUT, evaluated_as, read_evaluation
from cohort.analysis.store import open_run
from cohort.errors import UsageError
from cohort.experiments import compare as module
from cohort.experiments.compare import SAMPLES, Comparison, compare, grouped, parse_transfer, pinned
from cohort.experiments.sweep import arms_of, parse_axis, sweep
from cohort.training.display import Display
from tests.analysis.comparisons import write_run
from tests.helpers import tiny_policy
from tests.test_cli import run as command

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(6) for b in range(6)]
QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What trains a tiny model in two steps."""
    root = tmp_path_factory.mktemp("given")
    tiny_policy().save(root / "tiny")
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return {
        "model": str(root / "tiny"),
        "data": str(root / "sums.jsonl"),
        "reward": ["format:[0-4]", "0.5*length"],
        "steps": 2,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_new_tokens": 6,
        "lr": 1e-3,
        "threads": 1,
    }


def started(options: dict[str, Any], out: Path, **changes: Any) -> Comparison:
    given = {"seeds": 2, "samples": 2, **changes}
    return compare(["grpo", "dr-grpo"], options=options, out=out, display=QUIET, **given)


@pytest.fixture(scope="module")
def done(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A finished comparison of two methods with two seeds, measured on two data sets."""
    root = tmp_path_factory.mktemp("compared")
    with contextlib.chdir(root):
        found = started(options, Path("out"), transfer={"sums": options["data"]})
    return replace(found, folder=root / "out")


def stub(trained: list[tuple[int, str]], fails: dict[int, BaseException] | None = None) -> Callable[..., Any]:
    """Stands in for training: writes what a run leaves, or fails at the calls given."""

    def train(config: Any, **_: Any) -> Any:
        trained.append((config.seed, config.method))
        if fails and len(trained) in fails:
            raise fails[len(trained)]
        write_run(Path(config.out), method=config.method, seed=config.seed)
        (Path(config.out) / "final").mkdir()
        return SimpleNamespace(stopped=False)

    return train


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
    real_train, real_measure = module.train, module.evaluate_model
    stubbed = stub(trained)

    def train(config: Any, **others: Any) -> Any:
        if config.seed == 2:
            return stubbed(config, **others)
        trained.append((config.seed, config.method))
        return real_train(config, **others)

    def measure(config: Any, **others: Any) -> Any:
        measured.append(config.seed)
        return real_measure(config.model_copy(update={"model": options["model"]}), **others)

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "evaluate_model", measure)
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
    monkeypatch.setattr(module, "train", stub(order, {2: KeyboardInterrupt()}))
    first = started(options, tmp_path / "out", samples=0)
    assert first.stopped
    assert first.findings.entries == ["grpo"]
    assert not started(options, tmp_path / "out", samples=0).stopped
    # All methods with a seed before any with the next; what was finished is not run again.
    assert order == [(0, "grpo"), (0, "dr-grpo"), (0, "dr-grpo"), (1, "grpo"), (1, "dr-grpo")]


def test_a_run_that_fails_is_named_and_the_others_go_on(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train", stub([], {2: RuntimeError("out of memory")}))
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


def test_procedural_data_is_the_same_for_every_seed() -> None:
    assert pinned("reasoning_gym:chain_sum") == "reasoning_gym:chain_sum?seed=0"
    assert pinned("reasoning_gym:chain_sum?size=9") == "reasoning_gym:chain_sum?size=9&seed=0"
    assert pinned("reasoning_gym:chain_sum?seed=4") == "reasoning_gym:chain_sum?seed=4"
    assert pinned("train.jsonl") == "train.jsonl"


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


# what is refused ---------------------------------------------------------------------------------------------------


def refused(*arguments: Any) -> str:
    status, _, err = command(*arguments)
    assert status == 2, err
    return err


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


# sweeps ------------------------------------------------------------------------------------------------------------


def test_a_grid_takes_every_combination_of_hyperparameters_and_keys() -> None:
    arms = arms_of("grpo", [parse_axis("group_size=4,8"), parse_axis("kl_beta=0,1e-2")], None)
    assert [(a.name, a.method, dict(a.config)) for a in arms] == [
        ("group_size=4 kl_beta=0", "grpo(kl_beta=0)", {"group_size": 4}),
        ("group_size=4 kl_beta=0.01", "grpo(kl_beta=0.01)", {"group_size": 4}),
        ("group_size=8 kl_beta=0", "grpo(kl_beta=0)", {"group_size": 8}),
        ("group_size=8 kl_beta=0.01", "grpo(kl_beta=0.01)", {"group_size": 8}),
    ]
    assert [a.method for a in arms_of("grpo(kl_beta=0.1)+sage:guidance", [parse_axis("clip_low=0.1,0.2")], None)] == [
        "grpo(kl_beta=0.1, clip_low=0.1)+sage:guidance",
        "grpo(kl_beta=0.1, clip_low=0.2)+sage:guidance",
    ]


def test_random_settings_lie_in_their_ranges_and_are_the_same_again() -> None:
    axes = [parse_axis("lr=1e-6..1e-4:log"), parse_axis("group_size=4..8"), parse_axis("kl=k1,k3")]
    arms = arms_of("grpo", axes, 12)
    assert arms == arms_of("grpo", axes, 12)
    assert len({a.name for a in arms}) == 12
    drawn = [a.settings for a in arms]
    assert all(1e-6 <= s["lr"] <= 1e-4 and s["group_size"] in range(4, 9) and s["kl"] in ("k1", "k3") for s in drawn)
    # Evenly in the logarithm: about half lie below the geometric mean.
    assert 2 <= sum(s["lr"] < 1e-5 for s in drawn) <= 10


@pytest.mark.parametrize(
    ("axes", "draws", "said"),
    [
        (["lr=1e-6..1e-4"], None, "say how many to draw with --random N"),
        (["group_siz=4,8"], None, "neither 'grpo' nor the configuration has it; did you mean 'group_size'"),
        (["group_size=4"], None, "single setting"),
        (["group_size=4,4"], None, "twice"),
        (["group_size=4,8", "group_size=2,3"], None, "given twice"),
        (["group_size"], None, "write KEY=VALUE"),
        (["lr=0..1:log"], 3, "above 0 for :log"),
        (["lr=2..1"], 3, "from a lower number to a higher one"),
        (["group_size=4,8"], 5, "only 2 different settings"),
        ([], None, "nothing to vary"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(axes: list[str], draws: int | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arms_of("grpo", [parse_axis(text) for text in axes], draws)


def test_a_hyperparameter_out_of_its_range_is_refused_before_anything_runs(
    options: dict[str, Any], tmp_path: Path
) -> None:
    err = refused(
        "sweep",
        "grpo",
        "--grid",
        "clip_low=0.1,7",
        "--model",
        options["model"],
        "--data",
        options["data"],
        "--reward",
        "number",
        "--out",
        tmp_path / "out",
    )
    assert "clip_low" in err
    assert not (tmp_path / "out").exists()


def test_a_sweep_has_its_parameters_as_columns_and_plots(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train", stub([]))
    monkeypatch.setattr(module, "evaluate_run", lambda *_: {})
    found = sweep(
        "grpo",
        [parse_axis("group_size=2,4")],
        options={k: v for k, v in options.items() if k != "group_size"},
        seeds=2,
        samples=2,
        out=tmp_path / "out",
        display=QUIET,
    )
    assert found.failures == {}
    assert found.findings.settings == {"group_size=2": {"group_size": 2}, "group_size=4": {"group_size": 4}}
    assert not any("different group_size" in note for note in found.findings.notes)
    text = found.report.read_text()
    assert 'data-chart="setting" data-of="group_size"' in text
    assert (tmp_path / "out" / "results.csv").read_text().splitlines()[0].startswith("data,measure,entry,group_size,")
