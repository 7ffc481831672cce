"""SIGKILL of any rank at any moment, or of what started them: the run leaves what an undisturbed one does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.killing import CALLS
from tests.helpers import tiny_policy
from tests.training.test_kill import assert_same, command

# Seconds that a run takes at most, with what is killed.
LIMIT = 300
DRIVERS = ("sampling", "state written", "before the rename", "recorded")
# Options of what is killed, beside the method.
SETUPS: dict[str, tuple[str, list[str]]] = {
    "full": ("grpo", []),
    "parameters": ("grpo", ["--shard", "parameters"]),
    "adapters": ("grpo", ["--lora", "2"]),
    "critic": ("ppo(critic='model')", []),
    "states": ("grpo+knapsack", []),
    "updates": ("grpo", ["--set", "updates=2", "--set", "epochs=2"]),
    "best": ("grpo", ["--eval-data", "held.jsonl", "--eval-every", "1"]),
}


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def on_ranks(where: Path, arguments: list[str], kills: list[list[Any]]) -> None:
    """Run the command by torchrun on two ranks, which are killed at these moments."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started += ["--max-restarts", str(len(kills)), "-m", "tests.distributed.killing", *arguments]
    known = {**environment(), "KILLS": json.dumps(kills)}
    done = subprocess.run(started, env=known, capture_output=True, text=True, cwd=where, timeout=LIMIT)
    # torchrun says at length what the command has said in a line.
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "File" not in line)[-9000:]
    said = where / "killed.txt"
    assert (said.read_text().splitlines() if said.exists() else []) == [name for _, name, _ in kills]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy("qwen3").save(folder)
    return folder


def killed(where: Path, model: Path, name: str, kills: list[list[Any]], *further: str) -> None:
    """A run that is killed at the moments leaves what one does that is left alone."""
    method, more = SETUPS[name]
    for out, moments in (("whole", []), ("killed", kills)):
        on_ranks(where, command(where, model, method, [*more, *further], out), moments)
    assert_same(where / "whole", where / "killed")


def drawn(name: str, count: int) -> list[list[Any]]:
    """Moments of either rank."""
    rng = random.Random(f"{name} {count}")
    most = {"operation": 12, "update": 4, "updated": 4, "sampling": 40, "before the rename": 12, "recorded": 3}
    found = []
    for call in rng.choices(list(CALLS), k=count):
        rank = 0 if call in DRIVERS else rng.randrange(2)
        found.append([rank, call, rng.randint(1, most.get(call, 1))])
    return found


def test_ranks_that_are_killed_are_started_again_and_the_run_leaves_the_same(tmp_path: Path, model: Path) -> None:
    killed(tmp_path, model, "full", [[1, "update", 3]], "--steps", "4")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETUPS)
def test_kills_of_either_rank_at_drawn_moments(tmp_path: Path, model: Path, name: str) -> None:
    killed(tmp_path, model, name, drawn(name, 6))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["updates", "adapters"])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, model: Path, name: str) -> None:
    method, more = SETUPS[name]
    # First, then.
    counts = {"one": (1, 1), "two, then one": (2, 1), "one, then two": (1, 2)}
    rows = {}
    for out, processes in counts.items():
        for steps, count, resume in ((2, processes[0], []), (4, processes[1], ["--resume"])):
            arguments = [*command(tmp_path, model, method, more, out), "--steps", str(steps), *resume]
            done = subprocess.run(
                [sys.executable, "-m", "cohort", *arguments, "--processes", str(count)],
                env=environment(),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        rows[out] = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
    for out in list(counts)[1:]:
        assert [row["ranks/size"] for row in rows[out] if "ranks/size" in row] == [2, 2]
        for own, other in zip(rows["one"], rows[out], strict=True):
            # The terms of a loss are of the size of an advantage, and cancel.
            assert other["loss"] == pytest.approx(own["loss"], rel=1e-6, abs=1e-7)
            assert other["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-6)


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(child for each in found for child in children(each))]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@contextlib.contextmanager
def started(where: Path, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command, as a user gives it; nothing of it stays."""
    run = subprocess.Popen(
        [sys.executable, "-m", "cohort", *arguments],
        env=environment(),
        cwd=where,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    known = [run.pid]
    try:
        yield run
        if run.poll() is None:
            known += children(run.pid)
    finally:
        for pid in known:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def until(true: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.exhaustive
def test_no_process_stays_when_what_started_them_is_killed_and_the_run_is_continued(
    tmp_path: Path, model: Path
) -> None:
    arguments = [*command(tmp_path, model, *SETUPS["full"], "run"), "--steps", "40", "--processes", "2"]
    with started(tmp_path, arguments) as run:
        until(lambda: lines(tmp_path / "run") >= 3)
        left = children(run.pid)
        assert len(left) >= 2
        os.kill(run.pid, signal.SIGKILL)
        until(lambda: not any(map(alive, left)), 60)
    assert 3 <= lines(tmp_path / "run") < 40
    short = [*arguments, "--steps", str(lines(tmp_path / "run") + 2), "--resume"]
    done = subprocess.run(
        [sys.executable, "-m", "cohort", *short],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_of_cohorts_own_launch_that_is_killed_is_started_again(tmp_path: Path, model: Path, rank: int) -> None:
    whole, other = (
        [*command(tmp_path, model, *SETUPS["full"], out), "--processes", "2"] for out in ("whole", "killed")
    )
    with started(tmp_path, whole) as run:
        assert run.wait(LIMIT) == 0
    with started(tmp_path, other) as run:
        until(lambda: lines(tmp_path / "killed") >= 3)
        ranks = {}
        for pid in children(run.pid):
            with contextlib.suppress(OSError):
                given = dict(
                    each.split("=", 1) for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in each
                )
                ranks.setdefault(given.get("RANK"), pid)
        os.kill(ranks[str(rank)], signal.SIGKILL)
        assert run.wait(LIMIT) == 0, run.stderr and run.stderr.read()
    assert_same(tmp_path / "whole", tmp_path / "killed")
