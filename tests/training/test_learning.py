"""Learning, end to end: real runs whose success rises well above what chance allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import Result, train

pytestmark = pytest.mark.slow


def run(tmp_path: Path, **changes: Any) -> Result:
    config = {"steps": 24, "prompts_per_step": 16, "tensorboard": False, "show_every": 0, "record_every": 0, **changes}
    return train(make_config({**config, "out": str(tmp_path / "run")}), display=Display(quiet=True))


def rise(result: Result, steps: int = 6) -> float:
    """Mean accuracy of the last sampled rollouts minus that of the first; about 800 rollouts each."""
    accuracy = [row["accuracy"] for row in result.metrics]
    return sum(accuracy[-steps:]) / steps - sum(accuracy[:steps]) / steps


# The main job below has grpo, and tests/recipes/test_learning.py every method by itself, on a smaller task.
ALONE = ("grpo", "sage(solution='answer')", "disco")


@pytest.mark.parametrize("method", ["dapo+gdpo", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ALONE)])
def test_sampled_accuracy_rises(toy_cache: Path, tmp_path: Path, method: str) -> None:
    """The standard error of a difference between two means of 768 rollouts is below 0.026: 0.12 is beyond chance."""
    reward = ["task", "0.1*length"] if "gdpo" in method else ["task"]
    result = run(tmp_path, method=method, reward=reward)
    assert rise(result) > 0.12


def test_the_command_without_arguments(toy_cache: Path, tmp_path: Path) -> None:
    """The main job: greedy accuracy on unseen problems rises by at least 25 points, to at least 70 %."""
    environment = {**os.environ, "COHORT_CACHE": str(toy_cache), "HF_HUB_OFFLINE": "1"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cohort.cli", "train"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 600
    summary = json.loads((tmp_path / "runs/grpo-toy-1/summary.json").read_text())
    assert summary["accuracy_after"] >= 0.7
    assert summary["accuracy_after"] - summary["accuracy_before"] >= 0.25
    for part in ("unseen problems", "the run: runs/grpo-toy-1", "cohort eval"):
        assert part in done.stdout
    assert "step 80/80" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2])
def test_the_main_job_on_other_seeds(toy_cache: Path, tmp_path: Path, seed: int) -> None:
    result = train(make_config({"seed": seed, "out": str(tmp_path / "run")}), display=Display(quiet=True))
    assert result.summary["accuracy_after"] >= 0.7
    assert result.summary["accuracy_after"] - result.summary["accuracy_before"] >= 0.25


def test_training_and_test_problems_do_not_overlap(toy_cache: Path) -> None:
    from cohort.training.build import prepare

    setup = prepare(make_config({}), log=lambda _: None)
    try:
        assert len(setup.eval_prompts) == 200
        assert not {p.id for p in setup.prompts} & {p.id for p in setup.eval_prompts}
    finally:
        setup.close()


@pytest.mark.exhaustive
def test_the_example_with_tools(toy_cache: Path, tmp_path: Path) -> None:
    """Products that the model cannot work out: it gives up at first, and calls the calculator in the end.

    Of 100 problems at most 5 are right before, and at least half after: chance is a product of four digits.
    """
    environment = {**os.environ, "COHORT_CACHE": str(toy_cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cohort.cli", "train", "--example", "tools", "--steps", "20"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/grpo-toy-tools-1"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["accuracy_before"] <= 0.05
    assert summary["accuracy_after"] >= 0.5
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["tools/calls_mean"] > 0.7 > metrics[0]["tools/calls_mean"]
    assert metrics[0]["tools/unparseable"] > 0
    assert "unseen problems" in done.stdout
