"""What messages show of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from cohort.errors import shown


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


def test_a_value_is_shown_in_short_whatever_it_is() -> None:
    assert shown("a\nb  c") == shown("a\nb  c", 60) == "'a\\nb  c'"
    assert (len(shown("x" * 1000)), len(shown("x" * 1000, 60))) == (160, 60)
    assert shown(Unreadable(), 60) == "<its repr fails: RuntimeError>"
    assert "\n" not in shown(np.eye(3)) + shown(np.eye(3), 200)


def test_a_value_of_any_size_and_depth_is_shown() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**10_000, list(range(10**6)), dict.fromkeys(range(99), "x" * 999), Unreadable()):
        assert 0 < len(shown(value)) < 2000
        assert 0 < len(shown(value, 60)) <= 60
