"""Steps of two ranks are those of one process: gradients, fields, metrics and states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cohort import registry
from tests import micro
from tests.distributed.steps_on_ranks import AGENTS, CASES

# Ranks that probe do so along directions of their own, and are not one process: see test_probing.py.
TRAINABLE = [
    name
    for name in registry.names()
    if not registry.method(name).requires and not registry.method(name).stage("optimizer").declared.probes
]
# Of each kind one: a surrogate with a reference, a critic, wide logits of a slow copy, another optimizer, an auxiliary loss,
# rollouts that wait, replays.
CHOSEN = ["grpo", "ppo", "sdpo", "stosignsgd", "expo-explain", "t-ppo", "r2vpo"]

Steps = Callable[[list[str]], dict[tuple[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def steps(micro_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """(case, precision) -> what differs between ranks and one process; all cases in one start of the ranks."""
    micro.folder(micro_root)
    micro.folder(micro_root, True)

    def made(names: list[str]) -> dict[tuple[str, str], dict[str, Any]]:
        report = tmp_path_factory.mktemp("ranks") / "report.jsonl"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "tests.distributed.steps_on_ranks", str(micro_root), str(report), *names]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60 + 30 * len(names), check=False
        )
        assert ended.returncode == 0, ended.stderr[max(0, ended.stderr.find("Traceback")) :][:5000]
        rows = [json.loads(line) for line in report.read_text().splitlines()]
        return {(row["case"], row["dtype"]): row for row in rows}

    return made


def check(row: dict[str, Any]) -> None:
    """The numbers of ranks are those of one process."""
    assert row["ranks"] == 2
    assert row["tokens"] == 0
    if row["dtype"] == "float64":
        assert row["updates"] > 0
        for what in ("gradient", "gradients", "fields", "states", "roles", "progress", "metrics"):
            assert row[what] < 1e-9, (what, row)
        assert row["weights"] < 1e-7, row
    else:
        assert row["gradient"] < 2e-6, row
        # Adam divides the first gradient by its own size, however small.
        assert max(row[what] for what in ("fields", "states", "roles", "progress", "metrics")) < 1e-3, row


def test_ranks_give_the_numbers_of_one_process(steps: Steps) -> None:
    asked = [*(f"{name}:float32" for name in CHOSEN), *(f"{name}:float64" for name in (*CASES, AGENTS))]
    found = steps(asked)
    assert len(found) == len(asked)
    for row in found.values():
        check(row)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(4))
def test_every_method_gives_the_numbers_of_one_process(steps: Steps, part: int) -> None:
    asked = [f"{name}:{precision}" for name in TRAINABLE[part::4] for precision in ("float64", "float32")]
    found = steps(asked)
    assert len(found) == len(asked)
    for row in found.values():
        check(row)
