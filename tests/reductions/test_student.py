"""Student's t distribution."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.reductions.student import t_quantile, t_within


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.995), st.integers(1, 40))
def test_the_quantile_is_the_inverse_of_the_distribution(share: float, df: int) -> None:
    probability = (1 + share) / 2
    assert t_within(t_quantile(probability, df), df) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 12])
def test_the_distribution_is_the_integral_of_its_density(df: int) -> None:
    x = torch.linspace(-1.7, 1.7, 20_001, dtype=torch.float64)
    density = torch.distributions.StudentT(torch.tensor(float(df), dtype=torch.float64)).log_prob(x).exp()
    assert t_within(1.7, df) == pytest.approx(float(torch.trapezoid(density, x)), abs=1e-8)


def test_many_degrees_of_freedom_are_nearly_normal_and_few_are_wide() -> None:
    assert t_quantile(0.975, 2000) == pytest.approx(NormalDist().inv_cdf(0.975), abs=2e-3)
    quantiles = [t_quantile(0.975, df) for df in range(1, 30)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert t_quantile(0.5, 3) == 0 or t_quantile(0.5, 3) < 1e-9
