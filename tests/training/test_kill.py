"""SIGKILL at any moment: the resumed run ends with the weights of an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import ROWS
from tests.training.test_train import same, weights

# Runs the command, but kills its own process at the n-th call of a function.
KILLER = """
import os, signal, sys
import cohort.cli
from cohort.engine import picking
from cohort.training import checkpoint, precision
import torch

where, number = sys.argv.pop(1), int(sys.argv.pop(1))
count = 0

def deadly(function, after=False):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if where == "sampling":
    picking.pick = deadly(picking.pick)
elif where == "update":
    precision.MasterWeights.step = deadly(precision.MasterWeights.step, after=True)
elif where == "weights written":
    torch.save = deadly(torch.save)
elif where == "state written":
    torch.save = deadly(torch.save, after=True)
elif where == "before rename":
    checkpoint.sync = deadly(checkpoint.sync)
cohort.cli.main()
"""


def command(tmp_path: Path, model: Path, out: str, *more: str) -> list[str]:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return [
        "train", "grpo+knapsack", "--model", str(model), "--data", str(data), "--reward", "format:[0-4]", "--steps", "7",
        "--prompts-per-step", "3", "--group-size", "4", "--max-new-tokens", "8", "--lr", "1e-3", "--quiet",
        "--set", "checkpoint.every=2", "--set", "threads=1", "--set", "tensorboard=false", "--out", str(tmp_path / out), *more,
    ]  # fmt: skip


def call(arguments: list[str], *, kill: tuple[str, int] | None = None) -> int:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = ["-c", KILLER, kill[0], str(kill[1])] if kill else ["-m", "cohort.cli"]
    done = subprocess.run([sys.executable, *start, *arguments], env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, model_folder: Path) -> None:
    assert call(command(tmp_path, model_folder, "whole")) == 0
    moments = [
        ("update", 1), ("sampling", 20), ("weights written", 1), ("state written", 1), ("before rename", 5), ("update", 2),
    ]  # fmt: skip
    # One run is killed again and again, each time at another kind of moment, until it is left alone.
    arguments = command(tmp_path, model_folder, "killed", "--resume")
    for moment in moments:
        assert call(arguments, kill=moment) == -9, moment
    assert call(arguments) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    names = sorted(p.name for p in (tmp_path / "killed" / "checkpoints").iterdir())
    assert names == ["step-000006", "step-000007"]
