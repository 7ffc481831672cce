"""SIGKILL at any moment: the resumed run leaves what an uninterrupted one does."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

from tests.training.conftest import ROWS
from tests.training.test_run import same

PAIRS = [{"prompt": f"{a}+1=", "chosen": str(a + 1), "rejected": str(a)} for a in range(8)]
USER = "def f(completions, **_):\n    return [float(len(c) % 2) for c in completions]\n"
# Episodes of mixed lengths, whose environments answer when they like: what they say depends on row, seed and messages alone.
WORLD = """
import os, random, time
from cohort.environments import Step


class World:
    components = ("guesses",)

    def __init__(self, most):
        self.most = most

    def reset(self, row, seed):
        rng = random.Random(f"{seed} {row['prompt']}")
        self.digit, self.left = rng.randrange(10), rng.randint(1, self.most)
        time.sleep(os.urandom(1)[0] / 25600)
        return row["prompt"]

    def step(self, message):
        time.sleep(os.urandom(1)[0] / 25600)
        self.left -= 1
        if self.digit in (4, 5):
            raise ValueError("not this one")
        right = str(self.digit) in message["content"]
        return Step(f"{self.left}", 1.0 if right else -0.1, {"guesses": 1.0}, done=right or not self.left)
"""
# Metrics that time has its part in.
TIMED = ("time/", "queue/", "ranks/idle", "engine/tokens_per_second/", "engine/transfer_seconds")
# Method and further options of what is killed.
SETUPS: dict[str, tuple[str, list[str]]] = {
    "full": ("grpo", []),
    "adapters": ("grpo", ["--lora", "2"]),
    "critic": ("ppo(critic='model')", []),
    "states": ("grpo+knapsack", []),
    "tracker": ("spo-single-stream", ["--group-size", "1"]),
    "updates": ("grpo", ["--set", "updates=2", "--set", "epochs=2"]),
    "pairs": ("dpo", []),
    "user's reward": ("grpo", ["--reward", "reward.py:f"]),
    "best": ("grpo", ["--eval-data", "held.jsonl", "--eval-every", "1"]),
    "tensorboard": ("grpo", ["--set", "tensorboard=true"]),
    "episodes": (
        "grpo",
        [
            *("--environment", "world.py:World?most=4", "--environment-processes", "2", "--failed-episodes", "redraw"),
            *("--prompts-per-step", "8", "--group-size", "8", "--steps", "3"),
            *("--max-new-tokens", "48", "--max-turns", "3", "--turn-tokens", "12"),
            *("--set", "logit_bias={1: 4.0}"),
        ],
    ),
    "ahead": ("dapo+fg-expo", ["--ahead", "2", "--set", "optimisation.updates=2"]),
    "windows ahead": ("t-ppo(window=3)", ["--ahead", "1"]),
    "checkpoints by time": ("fg-expo", ["--set", "checkpoint.minutes=0.0001", "--set", "checkpoint.every=100"]),
}


def command(where: Path, model: Path, method: str, more: list[str], out: str) -> list[str]:
    """A run of seven steps; `more` are further options."""
    for file, rows in (("rows.jsonl", ROWS[:20]), ("held.jsonl", ROWS[20:26]), ("pairs.jsonl", PAIRS)):
        (where / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (where / "reward.py").write_text(USER)
    (where / "world.py").write_text(WORLD)
    data = ["--pairs", "pairs.jsonl"] if method == "dpo" else ["--data", "rows.jsonl"]
    reward = [] if method == "dpo" or "--reward" in more else ["--reward", "format:[0-4]"]
    return [
        "train",
        method,
        "--model",
        str(model),
        *data,
        *reward,
        "--steps",
        "7",
        "--prompts-per-step",
        "3",
        "--group-size",
        "4",
        "--max-new-tokens",
        "8",
        "--lr",
        "1e-3",
        "--quiet",
        "--record",
        "tokens",
        "--set",
        "checkpoint.every=2",
        "--set",
        "threads=1",
        "--set",
        "tensorboard=false",
        *more,
        "--out",
        out,
    ]


def killed(where: Path, model: Path, name: str, moments: list[list[Any]]) -> int:
    """Kill a run at the moments, resume it to its end, and compare; how often it was killed."""
    job = {
        "whole": command(where, model, *SETUPS[name], "whole"),
        "killed": [*command(where, model, *SETUPS[name], "KILLED"), "--resume"],
        "moments": moments,
    }
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killing"],
        env=environment,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=where,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["codes"]) <= {0, -9}, (result, done.stderr)
    assert (result["codes"][0], result["codes"][-1]) == (0, 0)
    for number in range(1, result["folders"] + 1):
        assert_same(where / "whole", where / f"killed-{number}")
    return result["codes"].count(-9)


def assert_same(whole: Path, other: Path) -> None:
    """Two runs left the same, but for times."""
    left, right = (sorted(p.name for p in f.iterdir() if not p.name.startswith("attempt-")) for f in (whole, other))
    assert left == right
    for name in [n for n in left if n in ("final", "best")]:
        for file in sorted(p.name for p in (whole / name).glob("*.safetensors")):
            assert same(load_file(whole / name / file), load_file(other / name / file)), (name, file)
        assert sorted(p.name for p in (whole / name).iterdir()) == sorted(p.name for p in (other / name).iterdir())
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, other)]
    assert [untimed(row) for row in rows[0]] == [untimed(row) for row in rows[1]]
    configs = [yaml.safe_load((f / "config.yaml").read_text()) for f in (whole, other)]
    assert {**configs[0], "out": ""} == {**configs[1], "out": ""}
    summaries = [json.loads((f / "summary.json").read_text()) for f in (whole, other)]
    apart = ("seconds", "peak_memory")
    assert {k: v for k, v in summaries[0].items() if k not in apart} == {
        k: v for k, v in summaries[1].items() if k not in apart
    }
    records = [sorted((f / "rollouts").iterdir()) for f in (whole, other)]
    assert [p.name for p in records[0]] == [p.name for p in records[1]]
    for mine, theirs in zip(*records, strict=True):
        # As texts: of what nobody sampled some numbers are NaN, which equals nothing.
        assert repr(pq.read_table(mine).to_pylist()) == repr(pq.read_table(theirs).to_pylist()), mine.name
    newest = [sorted(p.name for p in (f / "checkpoints").iterdir() if p.name[0] != ".")[-1] for f in (whole, other)]
    assert newest == [f"step-{len(rows[0]):06d}"] * 2
    if (whole / "tensorboard").is_dir():
        assert curves(whole) == curves(other)


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not k.startswith(TIMED)}


def curves(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows: of each metric and step the value that was written last."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[tuple[str, int], float] = {}
    for file in sorted((folder / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            if not tag.startswith(("time/", "queue/")):
                values |= {(tag, event.step): event.value for event in events.Scalars(tag)}
    return values


def drawn(name: str, count: int) -> list[list[Any]]:
    rng = random.Random(f"{name} {count}")
    return [[rng.choice(["time", "file"]), rng.random()] for _ in range(count)]


def test_a_run_of_episodes_that_is_killed_leaves_the_same(tmp_path: Path, model_folder: Path) -> None:
    # 64 episodes a step, of one to three turns; in the third step, in the middle of sampling.
    assert killed(tmp_path, model_folder, "episodes", [["call", "sampling", 90]]) == 1
    steps = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["rollouts/sampled"] + row["rollouts/failed"] >= 64 for row in steps)
    assert any(row["episode/failed"] > 0 for row in steps)
    assert any(row["rollouts/sampled"] + row["rollouts/failed"] > 64 for row in steps)
    assert all(1.2 < row["episode/turns_mean"] < 3 for row in steps)
    assert all(min(row["episode/done"], row["episode/out_of_turns"]) > 0 for row in steps)


def test_a_run_that_samples_ahead_and_is_killed_leaves_the_same(tmp_path: Path, model_folder: Path) -> None:
    # Between two lines of the journal.
    assert killed(tmp_path, model_folder, "ahead", [["call", "journal", 7]]) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_at_every_kind_of_moment_leaves_the_same(tmp_path: Path, model_folder: Path) -> None:
    # One run is killed again and again, each time at another kind of moment, until it is left alone.
    moments: list[list[Any]] = [
        ["call", "update", 1],
        ["call", "sampling", 20],
        ["call", "state written", 1],
        ["call", "before the rename", 5],
        ["call", "update", 2],
    ]
    assert killed(tmp_path, model_folder, "states", moments) == len(moments)


@pytest.mark.exhaustive
def test_a_run_that_samples_windows_ahead_is_killed_at_every_kind_of_moment(tmp_path: Path, model_folder: Path) -> None:
    moments: list[list[Any]] = [["call", "sampling", 20], ["call", "update", 2], ["call", "state written", 1]]
    assert killed(tmp_path, model_folder, "windows ahead", moments) == len(moments)


@pytest.mark.exhaustive
def test_a_run_that_is_killed_at_drawn_moments_leaves_the_same(tmp_path: Path, model_folder: Path) -> None:
    assert killed(tmp_path, model_folder, "best", drawn("best", 4)) >= 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETUPS)
def test_a_hundred_kills(tmp_path: Path, model_folder: Path, name: str) -> None:
    """A hundred over all set-ups."""
    assert killed(tmp_path, model_folder, name, drawn(name, 14)) >= 9
