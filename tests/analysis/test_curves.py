"""Curves along runs, and bands of several."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cohort.analysis.curves import Curve, accuracy_curve, band, curves_of, first_at, value_at
from cohort.analysis.findings import Entry
from cohort.analysis.store import open_run
from tests.analysis.comparisons import write_run


def test_the_curve_of_a_run_begins_before_its_first_step_and_ends_after_its_last(tmp_path: Path) -> None:
    found = accuracy_curve(open_run(write_run(tmp_path / "run", rate=0.7)))
    assert found.at["step"].tolist() == [0, 2, 4, 6]
    assert found.at["tokens"].tolist() == [0, 200, 400, 600]
    assert found.at["trained"].tolist() == [0, 160, 320, 480]
    assert found.at["seconds"].tolist() == [0, 1, 2, 3]
    assert found.values.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7])
    assert first_at(found, 0.4, "tokens") == (pytest.approx(300), True)
    assert first_at(found, 0.05, "tokens") == (0.0, True)
    assert first_at(found, 0.8, "tokens") == (600.0, False)
    assert value_at(found, 500, "tokens") == pytest.approx(0.6)
    assert math.isnan(value_at(found, 601, "tokens"))


def test_a_target_between_points_is_where_the_line_between_them_crosses_it() -> None:
    found = Curve({"tokens": np.array([0.0, 10.0, 20.0])}, np.array([0.5, 0.2, 0.8]))
    assert first_at(found, 0.6, "tokens") == (pytest.approx(10 + 10 * 2 / 3), True)
    assert first_at(Curve({"tokens": np.empty(0)}, np.empty(0)), 0.6, "tokens")[1] is False


def test_bands_reach_from_the_lowest_to_the_highest_seed_where_all_are(entries: list[Entry]) -> None:
    columns = curves_of(entries)["held-out accuracy"]["step"]["grpo"]
    assert columns["x"] == [0, 2, 4, 6]
    assert columns["low"][-1] == pytest.approx(0.48)
    assert columns["high"][-1] == pytest.approx(0.52)
    assert columns["mean"][-1] == pytest.approx(0.5, rel=1e-4)
    assert band([], "step") == {"x": [], "mean": [], "low": [], "high": []}
