"""`cohort train SLUG` for every method, ten steps on the embedded model: long, so outside the suite.

    make test-exhaustive

prints a table at the end: method, sampled accuracy at the first and the last steps, gradient norm, seconds. A method that
needs rewards or columns of its own says so in its adapter (`SWEEP`: hyper, reward, set, ...).
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cohort import registry
from cohort.cli import app
from tests.traits import trait

TRAINABLE = [name for name in registry.names() if not registry.method(name).lacks]
STEPS = 10


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TRAINABLE)
def test_it_trains_from_the_command_line(
    name: str, nursery_cache: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    given: dict[str, Any] = {**trait(name, "SWEEP", {})}
    command = ["train", name + given.pop("hyper", ""), "--steps", str(STEPS), "--out", str(tmp_path / "run")]
    for key, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            command += [f"--{key.replace('_', '-')}", str(each)]
    command += ["--set", "eval_size=20", "--set", "tensorboard=false"]
    start = time.monotonic()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["skipped_updates"] == 0 for row in rows)
    norms = [row["grad_norm"] for row in rows if row.get("grad_norm") is not None]
    assert norms
    assert all(math.isfinite(norm) for norm in norms)
    assert max(norms) > 0
    early, late = (statistics.mean(row["accuracy"] for row in part) for part in (rows[:3], rows[-3:]))
    seconds = time.monotonic() - start
    record_property(
        "sweep", f"{name:24} {early:6.1%} -> {late:6.1%}   grad {statistics.median(norms):9.3g}   {seconds:5.1f} s"
    )
