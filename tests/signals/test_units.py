"""Units of measurement in others of their kind."""

from __future__ import annotations

import pytest
from sympy import Rational

from cohort.signals.units import quantity


@pytest.mark.parametrize(
    ("one", "times", "other"),
    [
        ("km", 1000, "m"),
        ("m/s ^2", 1, "m s^-2"),
        ("km/h", "5/18", "m/s"),
        ("square meters", 1, "m^2"),
        ("meters squared", 1, "m^2"),
        ("miles per hour", 1, "mph"),
        ("kg*m/s^2", 1, "N"),
        ("MHz", 1000, "kHz"),
        ("mL", 1, "cm^3"),
        ("µs", "1/1000000", "s"),
        ("hrs", 60, "minutes"),
        ("feet", 12, "inches"),
        ("red apples", 1, "Red Apple"),
    ],
)
def test_a_unit_is_so_many_of_another(one, times, other):
    (scale, kind), (unit, same) = quantity(one), quantity(other)
    assert kind == same
    assert scale / unit == Rational(times)


@pytest.mark.parametrize(("one", "other"), [("m", "s"), ("dB", "dBm"), ("apples", "oranges"), ("J", "N"), ("c", "m/s")])
def test_units_of_other_kinds_are_others(one, other):
    assert quantity(one)[1] != quantity(other)[1]
