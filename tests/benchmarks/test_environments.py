"""Episodes at their own pace against lock-step, on a small model."""

from __future__ import annotations

import json

import pytest

from benchmarks import environments


def test_it_measures_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"hidden": 32, "layers": 1, "heads": 2, "kv-heads": 1, "vocab": 200, "episodes": 8, "group": 4, "turns": 2}
    times = {"turn-tokens": 4, "slowest-ms": 60, "threads": 1}
    arguments = [part for name, value in {**small, **times}.items() for part in (f"--{name}", str(value))]
    assert environments.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"own pace", "lock-step"}
    for numbers in found.values():
        assert 0 < numbers["idle"] < numbers["seconds"]
        assert numbers["idle_share"] == pytest.approx(numbers["idle"] / numbers["seconds"])
