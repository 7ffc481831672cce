"""Steps as noisy gradient ascent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.analysis.outer_loop import ascent, plateau

STEPS = st.floats(0.05, 1.5)


@given(STEPS, st.integers(1, 64))
def test_the_variance_comes_to_the_plateau(step: float, samples: int) -> None:
    known = {"curvature": 1.0, "sigma": 2.0, "step": step, "samples": samples}
    _, variance = ascent([0.0] * 400, start=1.0, **known)
    assert variance[-1] == pytest.approx(plateau(**known)[0])


@given(STEPS, st.integers(1, 64))
def test_four_times_the_samples_are_half_the_noise(step: float, samples: int) -> None:
    noise = [0.3, -1.0, 0.5]
    many = ascent(noise, start=1.0, curvature=1.0, sigma=2.0, step=step, samples=4 * samples)
    quiet = ascent(noise, start=1.0, curvature=1.0, sigma=1.0, step=step, samples=samples)
    assert many[0] == pytest.approx(quiet[0])
    assert many[1] == pytest.approx(quiet[1])


def test_too_large_a_step_settles_nowhere() -> None:
    assert plateau(curvature=1.0, sigma=1.0, step=2.0, samples=4) == (math.inf, math.inf)
