"""Checkpoints of ranks that hold a policy in parts: any number of processes reads them, and they read those of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cohort.distributed.storing import sees
from cohort.policies.causal_lm import CausalLM
from cohort.training import checkpoint
from tests.distributed.launching import run_on_ranks
from tests.distributed.storing_ranks import AFTER, BEFORE, KINDS, begin, expected, numbers, same, update

SCRIPT = "tests.distributed.storing_ranks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the checkpoints of one process, of two ranks, and a report of what those did."""
    folder = tmp_path_factory.mktemp("storing")
    for kind in KINDS:
        trainer = begin(kind)
        for number in range(1, BEFORE + 1):
            update(trainer.policy, trainer.optimizer, number)
        checkpoint.write(folder / f"one-{kind}", BEFORE, trainer.save, trainer.state_dict(), keep=1)
    run_on_ranks(SCRIPT, folder, "write")
    return folder


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_while_its_ranks_write(folder: Path, kind: str) -> None:
    ranks = report(folder)[f"written {kind}"]
    assert all(rank["went on"] for rank in ranks)
    # Each has written its half.
    assert 0.7 < ranks[0]["bytes"] / ranks[1]["bytes"] < 1.5
    assert checkpoint.damage(folder / kind / f"step-{BEFORE:06d}") is None


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_reads_what_two_ranks_wrote(folder: Path, kind: str) -> None:
    found = checkpoint.newest(folder / kind)
    assert found is not None
    trainer = begin(kind)
    trainer.load(found / "model", checkpoint.read_state(found))
    policy: Any = trainer.policy
    assert same(numbers(policy, trainer.optimizer), expected(kind, BEFORE))
    for number in range(BEFORE + 1, BEFORE + AFTER + 1):
        update(policy, trainer.optimizer, number)
    assert same(numbers(policy, trainer.optimizer), expected(kind, BEFORE + AFTER))
    if kind != "adapters":
        assert all(value.isfinite().all() for value in CausalLM.load(str(found / "model")).trainable())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["read", "of one"])
def test_ranks_read_what_ranks_or_one_process_wrote(folder: Path, kind: str, of: str) -> None:
    assert report(folder)[f"{of} {kind}"] == [{"there": True, "goes on": True}] * 2


@pytest.mark.exhaustive
def test_three_ranks_read_what_two_or_one_wrote(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    found = run_on_ranks(SCRIPT, tmp_path / "copy", "read", ranks=3)
    assert set(found) == {f"{of} {kind}" for of in ("read", "of one") for kind in KINDS}
    assert all(ranks == [{"there": True, "goes on": True}] * 3 for ranks in found.values())


def test_a_rank_that_cannot_write_is_named_and_the_next_checkpoint_is_whole(folder: Path) -> None:
    for rank in report(folder)["not written"]:
        assert rank["type"] == "OSError"
        assert "process 1: " in rank["said"]
    assert len(list((folder / "yes" / "model").glob("shard-*"))) == 4


def test_a_folder_is_known_by_what_the_driver_wrote_into_it(tmp_path: Path) -> None:
    assert not sees(tmp_path, "process 5 on a", limit=0.0)
    (tmp_path / ".lock").write_text("process 6 on b")
    assert not sees(tmp_path, "process 5 on a", limit=0.0)
    (tmp_path / ".lock").write_text("process 5 on a")
    assert sees(tmp_path, "process 5 on a", limit=0.0)
