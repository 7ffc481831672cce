"""Exponents are those of the data, and a benchmark that fails is not passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scaling


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7, 2.0])
def test_a_power_is_found_as_it_is(exponent: float) -> None:
    x = [1, 2, 4, 8]
    power = scaling.fit(x, [3.0 * a**exponent for a in x])
    assert power is not None
    assert power == pytest.approx((exponent, 3.0), abs=1e-9)


def test_noise_is_averaged_in_logarithms() -> None:
    # The errors are at right angles to the line's two directions: 1 and log x.
    power = scaling.fit([1, 2, 4, 8], [2.0 * 1.1, 4.0 / 1.1, 8.0 / 1.1, 16.0 * 1.1])
    assert power is not None
    assert power == pytest.approx((1.0, 2.0), abs=1e-9)


def test_what_has_no_logarithm_is_left_out() -> None:
    points = [{"group": g, "memory_mb": m, "none": 0.0} for g, m in ((2, 0.0), (4, 8.0), (8, 16.0))]
    found = scaling.exponents(points, "group", ["memory_mb", "none"])
    assert found["memory_mb"] == pytest.approx(1.0)
    assert found["none"] is None


def test_plots_are_drawn(tmp_path: Path) -> None:
    points = [{"group": g, "sample_s": 1.0 * g, "update_s": 2.0, "memory_mb": 0.0, "prefill_s": 1.0} for g in (1, 2, 4)]
    scaling.draw_axis(points, "group", tmp_path)
    scaling.draw_prefix(points, 1500, tmp_path)
    for name in ("group.png", "prefix.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No module named"):
        scaling.output_of("benchmarks.none", [])
