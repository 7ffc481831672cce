"""`cohort train --processes 2`, from the command line: what it leaves, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.distributed.record import PLACE, Record
from cohort.errors import UsageError
from tests import micro
from tests.cli.command import run, write

# A method that fails in ways of its own in the second process: memory runs out in step 1, losses are no numbers in step 2, and
# an error comes in step 4.
FAILING = """
import os

import torch

from cohort.axes import surrogate
from cohort.methods import Method, use
from cohort.types import StepInfo

once = [True]


def failing(batch, ratio, advantages, *, info: StepInfo):
    if os.environ.get("RANK") == "1":
        if info.step == 0 and once:
            once.clear()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if info.step == 1:
            return surrogate.ppo_clip(batch, ratio, advantages) * float("nan")
        if info.step == 3:
            raise RuntimeError("this rank has had enough")
    return surrogate.ppo_clip(batch, ratio, advantages)


def method() -> Method:
    return Method(surrogate=use(failing))
"""
# A reward that asks for the end in step 3, as a terminal does: of who has started the processes.
ENDING = """
import os
import signal

calls = []


def exact(completions, answer, **_):
    calls.append(1)
    if len(calls) == 3 and "COHORT_LAUNCH" in os.environ:
        os.kill(os.getppid(), signal.SIGINT)
    return [float(completion.strip() == right) for completion, right in zip(completions, answer)]
"""
SMALL = ["--prompts-per-step", "6", "--group-size", "4", "--max-new-tokens", "4", "--lr", "1e-3", "--device", "cpu"]
SMALL += ["--set", "tensorboard=false", "--set", "show_every=0", "--set", "reward_process=here"]


@pytest.fixture
def here(tmp_path: Path, micro_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a small run in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", [{key: row[key] for key in ("prompt", "answer")} for row in micro.ROWS])
    Path("failing.py").write_text(FAILING)
    Path("ending.py").write_text(ENDING)
    return ["--model", str(micro.folder(micro_root)), "--data", "rows.jsonl", *SMALL]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in processes of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    environment.pop(PLACE, None)
    command = [sys.executable, "-m", "cohort", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def metrics(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def test_an_interrupted_run_goes_on_in_one_process_and_is_that_of_one(here: list[str]) -> None:
    asked = ["train", "grpo", *here, "--reward", "ending.py:exact", "--steps", "4"]
    ended = start(*asked, "--processes", "2", "--out", "many")
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.count("stopping after this step") == 1
    assert "stopped after step 3; continue with the same command and --resume --out many" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("the first prompt") == 1
    status, _, said = run(*asked, "--out", "many", "--resume")
    assert status == 0, said
    assert run(*asked, "--out", "one", "--quiet")[0] == 0
    assert not Path("many", "attempt-1").exists()
    one, many = metrics("one"), metrics("many")
    assert [row["step"] for row in many] == [1, 2, 3, 4]
    for mine, theirs in zip(one, many, strict=True):
        for name in ("reward/mean", "tokens", "grad_norm", "entropy", "completion/length_mean"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-3, abs=1e-6), name
    assert many[0]["ranks/size"] == many[0]["engine/workers"] == 2
    assert many[0]["ranks/imbalance"] < 1.5
    assert 0 <= many[0]["ranks/idle"] < 1


def test_what_fails_in_another_process_is_mended_left_out_or_said_and_not_tried_again(here: list[str]) -> None:
    asked = [
        "train",
        "failing.py:method",
        *here,
        "--reward",
        "exact",
        "--steps",
        "9",
        "--processes",
        "2",
        "--out",
        "run",
    ]
    ended = start(*asked)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("rank 1: warning: out of memory: from here on micro-batches are half as large") == 1
    rows = metrics("run")
    assert [row["skipped_updates"] for row in rows] == [0, 1, 1]
    assert "rank 1 failed: RuntimeError: this rank has had enough" in ended.stderr
    assert "on rank 1:\nTraceback" in ended.stderr
    assert "everything up to step 3 is saved in run/checkpoints/step-000003" in ended.stderr
    assert "restart" not in ended.stderr


@pytest.mark.parametrize("environment", [{}, {"RANK": "1"}])
def test_other_commands_and_processes_within_torchrun_are_refused_by_the_driver_alone(
    here: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", **environment}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    driver = ranks["RANK"] == "0"
    for command, part in (
        (["methods"], "torchrun has started `cohort methods` in several processes"),
        (
            ["train", "grpo", *here, "--processes", "2"],
            "--processes 2 would have each process that torchrun has started",
        ),
        (["train", "grpo", "--group-siz", "4"], "--group-siz"),
    ):
        status, out, err = run(*command)
        assert (status, out) == (2 if driver else 0, "")
        assert (part in err) == driver


def test_runs_that_are_compared_have_one_process() -> None:
    from cohort import compare, train

    with pytest.raises(UsageError, match="processes: runs that are compared have one process each"):
        compare(["grpo", "dr-grpo"], processes=2)
    with pytest.raises(UsageError, match="processes is for the command line"):
        train("grpo", processes=2, data=[{"prompt": "a", "answer": "1"}], reward="exact")


def test_the_record_of_another_user_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "record.json")
    record.write(status=3)
    assert record.read() == {"status": 3}
    monkeypatch.setattr(os, "getuid", lambda: record.path.stat().st_uid + 1)
    assert record.read() == {}
