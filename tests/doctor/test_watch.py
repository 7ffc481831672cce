"""The doctor beside a run: says what is new, once, cheaply, and never fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cohort
from cohort.analysis.store import open_run
from cohort.cli import app
from cohort.doctor import examine
from cohort.doctor.watch import Watch
from tests.helpers import tiny_policy

SUMS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]


def row(step, **values):
    """Metrics of a step of a run that learns."""
    better = 0.3 + 0.005 * step
    return {"step": step, "accuracy": better, "entropy": 0.3, "grad_norm": 1.0, "reward/mean": better, **values}


def free() -> float:
    """A clock by which looking takes no time."""
    return 0.0


def test_a_finding_is_said_when_it_first_appears_and_not_again():
    watch, said = Watch("r", {}, clock=free), {}
    for step in range(1, 61):
        cut = 0.0 if step < 20 else 0.5
        for text in watch.step(row(step, **{"completion/truncated": cut})):
            said[step] = text
    assert list(said) == [20]
    assert said[20].startswith("doctor: ")
    assert "cut off at the limit" in said[20]
    assert "[truncation]" in said[20]


def test_a_run_that_is_continued_does_not_hear_again_what_was_said():
    rows = [row(step, **{"completion/truncated": 0.5}) for step in range(1, 21)]
    watch = Watch("r", {}, rows, clock=free)
    assert [watch.step(row(step, **{"completion/truncated": 0.5})) for step in range(21, 31)] == [[]] * 10


def test_a_run_of_a_dozen_steps_is_told_what_it_shows_before_it_ends():
    """A format takes over: the run has no ten steps to average over, but every step says the same."""
    form = [0.06, 0.09, 0.2, 0.3, 0.55, 0.7, 0.85, 0.93, 0.97, 1.0, 1.0, 1.0]
    right = [0.19, 0.22, 0.16, 0.12, 0.09, 0.06, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0]
    entropy = [2.1, 1.9, 1.6, 1.2, 0.9, 0.7, 0.55, 0.45, 0.4, 0.35, 0.31, 0.3]
    watch = Watch("r", {"steps": 12, "reward": ["math", "own.py:form"]}, clock=free)
    said = {}
    for step, (f, a, e) in enumerate(zip(form, right, entropy, strict=True), 1):
        values = {"reward/mean": a + f, "reward/math": a, "reward/form": f, "accuracy": a, "entropy": e}
        for text in watch.step(row(step, **values)):
            said[text.split("[")[1].split("]")[0]] = step
    assert said["reward-hacking"] <= 10
    assert said["entropy-collapse"] <= 12


def test_the_last_step_is_looked_at_however_dear_looking_is():
    clock = {"now": 0.0}
    watch, looks = Watch("r", {"steps": 12}, clock=lambda: clock["now"]), []

    def look():
        looks.append(len(watch.rows))
        clock["now"] += 100.0
        return []

    watch._look = look
    for step in range(1, 13):
        watch.step(row(step))
    assert looks == [2, 12]


def test_it_looks_less_often_where_looking_is_dear():
    clock = {"now": 0.0}
    looks = []

    def now():
        return clock["now"]

    watch = Watch("r", {}, clock=now)

    def look():
        looks.append(len(watch.rows))
        clock["now"] += 1.0  # a second a look, at a second a step
        return []

    watch._look = look
    for step in range(1, 401):
        clock["now"] += 1.0
        watch.step(row(step))
    assert looks == [10, 100, 200, 300, 400]
    # What was just looked at is paid for by the steps that follow.
    assert watch.spent - 1.0 <= 0.01 * clock["now"]


def test_a_diagnosis_that_fails_is_said_once():
    watch = Watch(
        "r",
        {"temperature": 0.2, "top_p": 1.0, "lr": 1e-3, "reward": ["number", "0.5*own.py:form"], "updates": "many"},
        clock=free,
    )
    odd = {"zero_signal_groups": 0.9, "completion/truncated": float("nan")}
    said = [text for step in range(1, 31) for text in watch.step(row(step, **odd) | {"kl": "high"})]
    assert len(said) == len(set(said))
    assert any("zero-signal" in text for text in said)


@pytest.fixture
def tiny(tmp_path) -> dict[str, Any]:
    """A run of ten steps whose completions are all cut."""
    tiny_policy().save(tmp_path / "tiny")
    return {
        "model": str(tmp_path / "tiny"),
        "data": SUMS,
        "reward": ["number", "0.1*length:8"],
        "steps": 10,
        "prompts_per_step": 4,
        "group_size": 4,
        "max_new_tokens": 4,
        "out": str(tmp_path / "run"),
        "show_every": 0,
        "tensorboard": False,
    }


def test_training_says_it_and_stores_what_the_doctor_reads(tiny, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    cohort.train("grpo", **tiny)
    told = capsys.readouterr()
    assert "doctor: alarm: " in told.out + told.err
    assert "[truncation]" in told.out + told.err
    report = examine(open_run(Path(tiny["out"])))
    assert report.problems == ()
    assert "truncation" in [finding.name for finding in report.findings]
    assert report.made >= 15, report.missing


def test_the_command_says_it_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in SUMS))
    (tmp_path / "config.yaml").write_text(json.dumps({**tiny, "data": str(data)}))
    told = CliRunner().invoke(app, ["train", "grpo", "--config", str(tmp_path / "config.yaml")])
    assert told.exit_code == 0, told.output
    assert "doctor: alarm: " in told.output


def test_training_without_it_says_nothing(tiny, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    cohort.train("grpo", **tiny, doctor=False)
    told = capsys.readouterr()
    assert "step" in told.out + told.err
    assert "doctor" not in told.out + told.err
