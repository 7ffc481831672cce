"""A pool of processes of this machine, one of which is killed in the middle of a step."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.connection import process
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.weights import MEMORY, Files
from cohort.errors import UsageError
from cohort.training.config import make_config
from cohort.training.continuing import check_same_run
from cohort.training.run import Result
from tests.engine.pool import runs
from tests.helpers import tiny_policy


def workers() -> list[int]:
    """Processes that draw for this one."""
    children = psutil.Process().children()
    return [each.pid for each in children if "cohort.engine.pool.connection" in each.cmdline()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run with the embedded engine."""
    return runs.run(runs.base(folder, tmp_path_factory.mktemp("alone") / "run"))


def test_a_run_in_which_a_worker_is_killed_has_the_numbers_of_one_process(
    folder: Path, alone: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(MEMORY.glob("cohort-weights-*"))
    killed = runs.when_dealt(monkeypatch, 1, lambda _: os.kill(workers()[0], signal.SIGKILL))
    result = runs.run(runs.base(folder, tmp_path / "run"), workers=2)
    assert killed.is_set()
    assert runs.numbers(result) == runs.numbers(alone)
    assert result.metrics[1]["engine/redrawn"] >= 1
    assert result.metrics[-1]["engine/workers"] >= 1
    assert result.metrics[-1]["engine/transfer_bytes"] > 0
    assert result.model is not None
    assert workers() == []
    assert set(MEMORY.glob("cohort-weights-*")) <= before


def test_a_run_may_go_on_with_other_workers_but_not_with_other_arithmetic(folder: Path, alone: Result) -> None:
    values = {**runs.base(folder, alone.folder), "data": runs.ROWS}
    for more in ({"workers": 3}, {"engine": "ray", "workers": 2, "ray_address": "auto"}):
        assert check_same_run(alone.folder, make_config(values, more)) == []
    for more in ({"engine": "vllm"}, {"engine": "ray", "worker_engine": "vllm"}):
        with pytest.raises(UsageError, match="engine \\(was 'native', now 'vllm'\\)"):
            check_same_run(alone.folder, make_config(values, more))


def test_the_last_words_of_a_process_that_cannot_start_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", broken_python)
    pool = EnginePool(tiny_policy(), [(process("worker-0", Blueprint.of(tiny_policy())), Files())], wait=2.0)
    with pytest.raises(
        UsageError, match=r"not there after 2 s \(engine_wait\): worker-0 \(.*last words were: out of order"
    ):
        pool.start()
    pool.close()


POPEN = subprocess.Popen


def broken_python(command: list[str], **how: object) -> subprocess.Popen[bytes]:
    return POPEN(["/bin/sh", "-c", "echo out of order >&2; exit 3"], **how)  # type: ignore[call-overload]
