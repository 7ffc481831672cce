"""Reading runs that are whole, going on, or cut."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.analysis.store import find_runs, open_run
from cohort.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "a"
    (run / "rollouts").mkdir(parents=True)
    (run / "config.yaml").write_text("method: grpo\nsteps: 3\n")
    rows = [{"step": 1, "accuracy": 0.5, "kl": None}, {"step": 2, "accuracy": 0.75, "kl": 0.1}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.table({"group": [0, 0], "reward": [1.0, 0.0]}), run / "rollouts" / "step-000002.parquet")
    return run


def test_a_run_that_goes_on_is_read_and_read_again(folder: Path) -> None:
    run = open_run(folder)
    assert (run.config["method"], run.summary, run.problems) == ("grpo", {}, [])
    assert run.series("kl") == ([2], [0.1])
    assert run.names() == ["accuracy", "kl"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "accuracy": 1.0}) + "\n")
    (folder / "summary.json").write_text('{"steps": 3}')
    run.refresh()
    assert run.series("accuracy") == ([1, 2, 3], [0.5, 0.75, 1.0])
    assert run.summary == {"steps": 3}


def test_a_line_cut_by_a_crash_is_left_out_and_said(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "accur')
    run = open_run(folder)
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert run.problems == [f"{folder}/metrics.jsonl: 1 line(s) hold no step and are left out: 3"]


def test_rollouts_are_read_by_column_and_a_cut_file_is_left_out_and_said(folder: Path) -> None:
    run = open_run(folder)
    assert run.steps() == [2]
    table = run.rollouts(2, ["reward", "no such"])
    assert table is not None
    assert table.to_pydict() == {"reward": [1.0, 0.0]}
    assert run.rollouts(1) is None
    assert run.problems == []
    path = folder / "rollouts" / "step-000002.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    for _ in range(2):
        assert run.rollouts(2) is None
    assert len(run.problems) == 1
    assert str(path) in run.problems[0]


def test_no_run_is_said_with_the_runs_that_are_near(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder; runs near it: .*runs/a"):
        open_run(folder.parent / "b")
    with pytest.raises(UsageError, match=r"holds neither"):
        open_run(tmp_path / "runs")
    assert find_runs(tmp_path) == [folder]
