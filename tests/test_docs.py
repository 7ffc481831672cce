"""Documentation: examples run, pages made from the code are up to date, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cohort.api
from cohort import registry
from cohort.methods import HOOKS
from cohort.rewards.builtin import FORMS
from cohort.training.assembly import assemble
from cohort.training.build import prepare
from cohort.training.config import keys, make_config
from cohort.training.loop import one_step
from tests import micro
from tests.cli.command import run as cohort_command

ROOT = Path(__file__).parent.parent
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
# What a run writes, and what stands for a file of the reader's.
OTHERS = ("runs/", "path/", "ahead/", "checkpoints/", "rollouts/step", "final/", "best/", "attempt-1/")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_made_from_the_code_are_up_to_date() -> None:
    made = generator()
    for name, make in made.PAGES.items():
        assert (ROOT / "docs" / name).read_text() == made.NOTE + make(), f"run python docs/generate.py ({name})"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize(
    "page",
    sorted({*PAGES} - {"CHANGELOG.md"}),  # which tells what was
)
def test_files_that_are_mentioned_exist(page: str) -> None:
    text = re.sub(r"https?://\S+", "", (ROOT / page).read_text())
    for file in re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|c|md|yml)|[\w.-]+/(?:[\w.-]+/)*)`", text):
        if not file.startswith(OTHERS) and "my_method" not in file:
            assert any((root / file).exists() for root in (ROOT, ROOT / "src/cohort")), file


def test_methods_and_options_that_are_mentioned_exist() -> None:
    from typer.main import get_command

    from cohort.cli import app

    train = get_command(app).commands["train"]  # type: ignore[attr-defined]
    options = {name for command in get_command(app).commands.values() for p in command.params for name in p.opts}  # type: ignore[attr-defined]
    assert "--prompts-per-step" in {name for p in train.params for name in p.opts}
    for page in ("README.md", "docs/tutorial.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text()
        for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text):
            assert option in options | {"--check"}, (page, option)
        for names in re.findall(r"cohort (?:train|explain) ([a-z][a-z0-9+-]*)", text):
            for name in names.split("+"):
                assert name in {*registry.names(), "my-method", "path"}, (page, name)


def test_the_guide_names_methods_that_exist_and_can_be_trained() -> None:
    text = (ROOT / "docs" / "choosing.md").read_text()
    cells = [line.split("|")[2] for line in text.splitlines() if line.startswith("|") and line.count("|") == 4]
    named = {name for cell in cells for name in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert len(named) > 50
    for name in named:
        assert not registry.method(name).requires, name


def test_what_other_trainers_call_by_another_name_composes_here() -> None:
    text = (ROOT / "docs" / "coming-from.md").read_text()
    cells = [line.split("|")[-2] for line in text.splitlines() if line.startswith("| ")]
    named = [
        each for cell in cells for each in re.findall(r"`([^`]+)`", cell) if not each.startswith(("--", "cohort "))
    ]
    assert len(named) > 45
    for name in named:
        assert not registry.method(name).requires, name


def test_every_metric_is_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-zA-Z0-9_/@]+)`", text))
    files = ("loop.py", "run.py", "diagnostics.py")
    source = "".join((ROOT / "src/cohort/training" / file).read_text() for file in files)
    named = "reward|completion|rollouts|time|eval|advantage|ratio|group|length|logp"
    for name in re.findall(rf'"((?:{named})/[a-zA-Z0-9_@]+)"', source):
        assert name in documented, name


def test_every_configuration_key_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert all(f"`{key}`" in text for key in keys())


@pytest.mark.slow
def test_every_builtin_reward_is_documented_with_what_it_can_be_fooled_by() -> None:
    page = (ROOT / "docs/rewards.md").read_text()
    rows = re.findall(r"^\|(.+?)\|(.+?)\|(.+?)\|$", page.partition("\n## How")[0], re.MULTILINE)
    named = {form: fooled.strip() for _, rewards, fooled in rows for form in re.findall(r"`([^`]+)`", rewards)}
    for form in FORMS:
        assert named.get(form), (
            f"docs/rewards.md: the table of tasks lacks `{form}`: for what, and what it can be fooled by"
        )


def test_examples_in_docstrings_run(toy_cache: Path) -> None:
    result = doctest.testmod(cohort.api, verbose=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.fixture
def guides_code(tmp_path: Path) -> list[Path]:
    """The Python of CONTRIBUTING.md as files: the recipe, a function for every hook, and the source."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    # The environment among them is run by tests/environments.
    files = [tmp_path / f"{name}.py" for name in ("my_method", "own_hooks", "own_source")]
    for file, code in zip(files, [code for code in blocks if "EnvironmentFactory" not in code], strict=True):
        file.write_text(textwrap.dedent(code))
    return files


def test_the_guides_recipe_is_explained_and_has_its_range(guides_code: list[Path]) -> None:
    status, out, _ = cohort_command("explain", f"{guides_code[0]}:my_method")
    assert status == 0
    assert "signs(scale=1)   [my-method]" in out
    status, _, err = cohort_command("explain", f"{guides_code[0]}:my_method(scale=0)")
    assert status == 2
    assert "(0, inf)" in err


def test_the_guide_has_an_example_of_every_hook_that_trains(
    guides_code: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    recipe, own, _ = guides_code
    names = [f"{recipe}:my_method", f"{own}:baseline+{own}:bounded:surrogate", f"{own}:bounded"]
    methods = [registry.method(name) for name in names]
    stages = [stage.declared for method in methods for _, stage in method.stages() if stage.source]
    assert all(any(getattr(declared, hook) for declared in stages) for hook in HOOKS)
    given = {**micro.CONFIG, "model": str(micro.folder(tmp_path_factory.getbasetemp())), "group_size": 4, "steps": 2}
    reported: dict[str, list[float]] = {}
    for method in methods:
        setup = prepare(make_config(given), method=method, log=lambda _: None)
        try:
            run = assemble(setup)
            for _ in range(2):
                result = one_step(run)
                assert result.metrics["skipped_updates"] == 0
                for name in {"baseline", "bounded"} & {*result.metrics}:
                    reported.setdefault(name, []).append(result.metrics[name])
        finally:
            setup.close()
    assert {name: len(values) for name, values in reported.items()} == {"baseline": 2, "bounded": 2}


def test_the_guides_source_leaves_truncated_rollouts_out(
    guides_code: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = runpy.run_path(str(guides_code[2]))["Finished"]
    root = tmp_path_factory.getbasetemp()
    given = {**micro.CONFIG, "model": str(micro.folder(root)), "temperature": 1.5, "max_new_tokens": 2}
    setup = prepare(make_config(given), method=registry.method("rloo"), log=lambda _: None)
    try:
        run = assemble(setup)
        run.source = made(run.source)
        result = one_step(run)
    finally:
        setup.close()
    assert {rollout.finished for rollout in result.rollouts} == {True, False}
    assert {result.rollouts[row].finished for row in result.trained} == {True}


def commands(page: Path) -> list[list[str]]:
    """The commands `cohort ...` of a page, those that are indented, as words."""
    text = page.read_text().replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in re.findall(r"^    (cohort .*)$", text, re.MULTILINE)]


@pytest.mark.slow
def test_the_tutorials_commands_run_as_they_stand(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "docs/tutorial", tmp_path / "tutorial")
    monkeypatch.chdir(tmp_path / "tutorial")
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    monkeypatch.setattr("webbrowser.open", lambda address: None)
    run = commands(ROOT / "docs/tutorial.md")
    assert {words[1] for words in run} == {"doctor", "score", "eval", "train", "view", "explain"}
    said = {}
    for words in run:
        status, out, err = cohort_command(*words[1:])
        assert status == 0, (words, err)
        said[tuple(words[1:3])] = out
    # The run does what the page says of it.
    summary = json.loads(Path("runs/first/summary.json").read_text())
    assert summary["accuracy_after"] - summary["accuracy_before"] > 0.3
    assert "accuracy of the rollouts it drew" in said["train", "grpo"]
    assert json.loads(Path("runs/pairs/summary.json").read_text())["accuracy_after"] > 0.3


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """Metrics of a run, without what depends on clocks and on who drew."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "engine/", "ranks/"))} for row in rows]


@pytest.mark.exhaustive
def test_the_commands_from_one_machine_to_many_run_as_they_stand(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    folder = shutil.copytree(ROOT / "docs/tutorial", tmp_path / "tutorial")
    command = tmp_path / "cohort"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cohort "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    page = (ROOT / "docs/tutorial-scale.md").read_text()
    scripts = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)]
    scripts = [script for script in scripts if "cohort" in script]
    assert len(scripts) == 7
    for script in scripts:
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=folder, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, (script, done.stdout[-2000:], done.stderr[-4000:])
    one, ahead = (steps_of(folder / "runs" / name) for name in ("one", "ahead"))
    assert steps_of(folder / "runs/workers") == one
    for name in ("ranks", "moved"):
        there = steps_of(folder / "runs" / name)
        assert [row["step"] for row in there] == [row["step"] for row in one]
        assert [row["reward/mean"] for row in there] == [row["reward/mean"] for row in one]
        assert [row["grad_norm"] for row in there] == pytest.approx([row["grad_norm"] for row in one], rel=1e-4)
    assert [row["rollouts/age_max"] for row in ahead] == [0.0] + [1.0] * 7
    # Until the shorter run has nothing more to draw, the one whose worker was killed is the same.
    queued = ("queue/depth", "queue/in_flight")
    killed = steps_of(folder / "runs/killed")
    assert len(killed) == 40
    for there, here in zip(killed, ahead, strict=False):
        assert {k: v for k, v in there.items() if k not in queued} == {k: v for k, v in here.items() if k not in queued}
    lost = [json.loads(line) for line in (folder / "runs/killed/metrics.jsonl").read_text().splitlines()]
    assert min(row.get("engine/workers", 2) for row in lost) == 1


@pytest.mark.slow
def test_the_composed_reward_is_looked_at_scored_and_trained_on_as_it_stands(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "docs/tutorial", tmp_path / "tutorial")
    monkeypatch.chdir(tmp_path / "tutorial")
    run = [words for words in commands(ROOT / "docs/rewards.md") if any("work=format" in word for word in words)]
    assert [words[1] for words in run] == ["doctor", "score", "train"]
    said = {}
    for words in run:
        status, out, err = cohort_command(*words[1:])
        assert status == 0, (words, err)
        said[words[1]] = (out, err)
    # Nothing pays without an answer, and nothing else is wrong.
    assert "nothing found" in said["doctor"][0]
    assert "paid-for-nothing" not in said["doctor"][0]
    rows = [json.loads(line) for line in said["score"][0].splitlines()]
    assert {(row["number"], row["length"], row["reward"]) for row in rows} == {(0.0, 0.0, 0.0), (1.0, 0.5, 1.1)}
    assert min(row["raw/length"] for row in rows) > 0.9
    assert {row["weight/length"] for row in rows} == {0.2}
    metrics = [json.loads(line) for line in Path("runs/composed/metrics.jsonl").read_text().splitlines()]
    assert [row["weight/length"] for row in metrics] == pytest.approx([min(0.2, 0.025 * step) for step in range(10)])
    assert all(row["reward/number"] <= row["raw/number"] and row["reward/length"] <= 0.5 for row in metrics)


def test_the_tutorial_shows_the_data_and_the_reward_that_stand_beside_it() -> None:
    page, folder = (ROOT / "docs/tutorial.md").read_text(), ROOT / "docs/tutorial"
    assert f"```python\n{(folder / 'rewards.py').read_text()}```" in page
    assert f"```json\n{''.join((folder / 'train.jsonl').read_text().splitlines(keepends=True)[:2])}```" in page
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert {type(row["prompt"]) for row in rows} == {str, list}
    asked = [json.loads(line)["prompt"] for line in (folder / "test.jsonl").read_text().splitlines()]
    assert not [row for row in rows if row["prompt"] in asked]


@pytest.mark.exhaustive
def test_the_commands_with_tools_run_as_they_stand(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "docs/tutorial", tmp_path / "tutorial")
    monkeypatch.chdir(tmp_path / "tutorial")
    # The example itself is tested apart; what is shown with tools are runs of some steps.
    run = [words for words in commands(ROOT / "docs/tools.md") if words[1] == "train" and "--example" not in words]
    assert len(run) == 2
    for words in run:
        status, _, err = cohort_command(*words[1:])
        assert status == 0, (words, err)
    for name in ("tools", "bench"):
        last = json.loads(Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()[-1])
        assert last["tools/calls_mean"] > 0
        assert last["episode/failed"] == 0
    assert "reward/sparing" in last


def test_the_page_of_tools_shows_the_functions_that_stand_beside_it() -> None:
    page, shown = (ROOT / "docs/tools.md").read_text(), (ROOT / "docs/tutorial/tools.py").read_text()
    assert f"```python\n{shown.split('async')[0].rstrip()}\n```" in page


@pytest.mark.slow
def test_the_tutorials_python_runs(toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import cohort\n.*?)```", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL)
    namespace: dict[str, object] = {"__name__": "tutorial"}
    exec(compile(code, "tutorial", "exec"), namespace)
    assert (tmp_path / "runs/from-python/final/config.json").is_file()
