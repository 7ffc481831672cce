"""A run of ranks shares its rollouts as one node, with other runs of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cohort
from tests import micro
from tests.training.test_sharing import logged, options


@pytest.mark.exhaustive
def test_ranks_learn_from_another_run_and_it_from_them(micro_root: Path, tmp_path: Path) -> None:
    swarm = {"share_folder": str(tmp_path / "swarm"), "share_groups": 3, "lr": 1e-3, "steps": 1}
    cohort.train("sapo", quiet=True, **options(micro_root, tmp_path / "alone", **swarm, seed=2))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in micro.ROWS))
    given = {"model": str(micro.folder(micro_root)), "data": str(rows), "reward": "exact", "out": "ranks", "seed": 3}
    given |= {"prompts-per-step": 4, "group-size": 4, "max-new-tokens": 4, "lr": 1e-3, "processes": 2, "steps": 1}
    given |= {"share-folder": swarm["share_folder"], "share-groups": 3}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "cohort", "train", "sapo", *words, "--set", "tensorboard=false", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = logged(tmp_path / "ranks")
    assert row["ranks/size"] == 2
    # The other run had four groups: those without a difference between their rewards teach nothing, and are not taken.
    assert 0 < row["shared/groups"] <= 3
    assert row["skipped_updates"] == 0
    # The ranks are one node to others, not one each.
    nodes = {path.name.split(".")[0] for path in (tmp_path / "swarm").glob("*.json")}
    assert len(nodes) == 2
    cohort.train("sapo", quiet=True, **options(micro_root, tmp_path / "third", **{**swarm, "seed": 4}))
    assert logged(tmp_path / "third")[0]["shared/groups"] > 0
