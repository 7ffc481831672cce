"""The table says what was reached, and runs what its benchmarks take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import longest, table, vs_trl

FOUND = {"step_ratio": 6.99, "memory_ratio": 0.2, "sample_ratio": 4.0, "stream_ratio": 3.2}


def test_bounds_hold_on_their_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[str, list[str]]] = []

    def output_of(module: str, options: list[str]) -> dict[str, Any]:
        asked.append((module, options))
        return FOUND

    monkeypatch.setattr(table, "output_of", output_of)
    assert table.main(["--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])["cases"]
    assert [case["met"] for case in found] == [[True, True], [False, True], [True, True], [True], [False]]
    assert "| seconds a step | 6.99 | at least 7 | not met |" in out
    assert "| peak memory | 0.20 | at most 0.2 | met |" in out
    # Every option is one of the benchmark's.
    for module, options in asked:
        parsed = (longest if module == "benchmarks.longest" else vs_trl).parse(options)
        assert parsed.json
        assert parsed.hidden in (256, 512)
    asked.clear()
    table.main(["--no-longest"])
    assert {module for module, _ in asked} == {"benchmarks.vs_trl"}


def test_figures_are_kept_with_the_commit_that_made_them(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        table.keep([{"case": "one", **FOUND, "step_seconds": 3.0}], path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["step_ratio"] == 6.99
    assert {"date", "commit", "machine", "torch"} <= set(lines[0])
    assert "step_seconds" not in lines[0]
    kept = [json.loads(line) for line in table.RESULTS.read_text().splitlines()]
    assert {line["case"] for line in kept} <= {case.title for case in table.CASES}
