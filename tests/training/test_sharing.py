"""Two runs on one machine share what they draw, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cohort
from cohort.errors import UsageError
from tests import micro


def options(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    given = {key: value for key, value in micro.CONFIG.items() if key != "show_every"}
    return {
        **given,
        "model": str(micro.folder(root)),
        "out": str(out),
        "prompts_per_step": 4,
        "group_size": 4,
        **changes,
    }


OTHER = """
import json, sys
import cohort
cohort.train("sapo", quiet=True, **json.loads(sys.argv[1]))
"""


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_runs_learn_from_each_other(micro_root: Path, tmp_path: Path) -> None:
    swarm = {"share_folder": str(tmp_path / "swarm"), "share_groups": 3, "lr": 1e-3, "seed": 2, "steps": 40}
    running = subprocess.Popen(
        [sys.executable, "-c", OTHER, json.dumps(options(micro_root, tmp_path / "other", **swarm))]
    )
    try:
        until = time.monotonic() + 120
        while not list((tmp_path / "swarm").glob("*.json")) and time.monotonic() < until:
            time.sleep(0.05)
        cohort.train("dapo", quiet=True, **options(micro_root, tmp_path / "mine", **{**swarm, "seed": 3, "steps": 20}))
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.wait()
    for out in ("mine", "other"):
        rows = logged(tmp_path / out)
        assert any(row["shared/groups"] for row in rows)
        assert all(row["shared/groups"] <= 3 for row in rows)
        assert all(row["skipped_updates"] == 0 for row in rows)
        assert max(row["mismatch_max"] for row in rows) < 1e-3


def test_a_resumed_run_is_the_same_to_others_and_goes_on(micro_root: Path, tmp_path: Path) -> None:
    swarm = {"share_folder": str(tmp_path / "swarm"), "checkpoint.every": 1}
    cohort.train("sapo", quiet=True, **options(micro_root, tmp_path / "a", steps=1, **swarm))
    first = [path.name for path in (tmp_path / "swarm").glob("*.json")]
    (tmp_path / "swarm" / f"{'f' * 12}.000001.{'0' * 16}.json").write_text("nonsense")
    result = cohort.train("sapo", quiet=True, resume=True, **options(micro_root, tmp_path / "a", steps=3, **swarm))
    nodes = {path.name.split(".")[0] for path in (tmp_path / "swarm").glob("*.json")}
    assert nodes == {first[0].split(".")[0], "f" * 12}
    assert [row["shared/groups"] for row in logged(tmp_path / "a")] == [0.0] * 3
    assert result is not None
    cohort.train("sapo", quiet=True, **options(micro_root, tmp_path / "b", steps=1, seed=9, **swarm))
    assert logged(tmp_path / "b")[0]["shared/groups"] > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"share_folder": "nowhere://x"}, "share_folder 'nowhere://x'"),
        ({"share_folder": "x", "stop": ["."]}, "leave one of them out"),
        ({"share_folder": "x", "environment": "x.py:Y"}, "neither with an environment"),
    ],
)
def test_what_does_not_go_with_sharing_is_refused(
    micro_root: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        cohort.train("sapo", quiet=True, **options(micro_root, tmp_path / "run", steps=1, **changes))
    assert not (tmp_path / "run").exists()
