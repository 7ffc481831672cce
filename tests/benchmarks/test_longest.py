"""The search for the longest sequence finds it, whatever memory does."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import longest


@pytest.mark.parametrize(
    ("base", "each", "power", "most", "ended", "expected"),
    [
        (1000, 1.0, 1.0, 16_384, 1.0, 2896),  # a line: 3,096 fit
        (1000, 0.01, 1.0, 16_384, 0.0, 16_384),  # more than is tried
        (1000, 0.0001, 2.0, 16_384, 1.0, 4871),  # a parabola: 5,564 fit, the line through two short tries says more
        (4000, 1.0, 1.0, 16_384, 1.0, 91),  # less than the first tries
        (3000, 1.4, 1.0, 16_384, 1.0, 724),  # the first fits, the second does not
    ],
)
def test_the_longest_that_fits_is_found(
    monkeypatch: pytest.MonkeyPatch, base: float, each: float, power: float, most: int, ended: float, expected: int
) -> None:
    tried: list[int] = []

    def attempt(_: str, length: int, __: Path, size: Namespace) -> dict[str, Any] | None:
        assert length not in tried
        tried.append(length)
        peak = base + each * length**power
        return {"peak_mb": peak, "seconds": 1.0} if peak <= size.budget_gb * 1024 else None

    monkeypatch.setattr(longest, "attempt", attempt)
    size = longest.parse(["--most-tokens", str(most)])
    if expected < 2 * longest.SHORT:
        with pytest.raises(RuntimeError, match="does not train within"):
            longest.longest("stream", Path(), size)
        return
    found = longest.longest("stream", Path(), size)
    assert (found["length"], found["ended"]) == (expected, ended)
    assert len(tried) < 12
