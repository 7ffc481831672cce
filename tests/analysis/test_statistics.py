"""Intervals that cover, tests that are corrected, and numbers of seeds that suffice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.analysis.statistics import (
    NORMAL,
    Estimate,
    Replicates,
    difference,
    estimate,
    holm,
    holm_levels,
    mean_interval,
    problem_weights,
    seeds_to_show,
    share_difference,
    share_p,
    t_quantile,
)

PROBLEMS = 80
WEIGHTS = problem_weights(PROBLEMS, resamples=300) / PROBLEMS


def measured(x: np.ndarray, first: int = 0) -> Replicates:
    """[S, P] values of each run on each problem, as means."""
    return Replicates(tuple(range(first, first + len(x))), x.mean(1), x @ WEIGHTS.T, PROBLEMS)


def drawn(rng: np.random.Generator, seeds: int, of_seeds: float, of_problems: float, rest: float) -> np.ndarray:
    """[S, P] with mean 0 and given standard deviations between seeds, between problems, and of what is left."""
    return (
        rng.normal(0, of_seeds, (seeds, 1))
        + rng.normal(0, of_problems, (1, PROBLEMS))
        + rng.normal(0, rest, (seeds, PROBLEMS))
    )


@pytest.mark.parametrize(
    ("p", "df", "value"),
    [(0.975, 1, 12.7062), (0.975, 4, 2.7764), (0.995, 10, 3.1693), (0.975, 1e9, 1.959964), (0.025, 2, -4.3027)],
)
def test_quantiles_of_students_t_are_those_of_tables(p: float, df: float, value: float) -> None:
    assert t_quantile(p, df) == pytest.approx(value, abs=5e-4)
    # One run more than that, without problems, is the t-test.
    if df < 100:
        runs = np.arange(df + 1) - df / 2
        shift = value * runs.std(ddof=1) / math.sqrt(len(runs))
        found = estimate(Replicates(tuple(range(len(runs))), runs + shift, np.empty((len(runs), 0))))
        assert found.p == pytest.approx(2 * min(p, 1 - p), abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("parts", [(0.05, 0.1, 0.1), (0.0, 0.3, 0.1), (0.02, 0.1, 0.3)])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int, parts: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        low, high = estimate(measured(drawn(rng, seeds, *parts))).interval()
        inside += low <= 0 <= high
    # Three binomial standard errors around 95 %; intervals of two parts are a little wide.
    assert 0.912 <= inside / 300 <= 0.995


def test_plain_percentiles_of_five_seeds_would_not_cover() -> None:
    """Why the interval is no percentile interval."""
    rng = np.random.default_rng(0)
    inside = kept = 0
    for _ in range(400):
        x = rng.normal(size=5)
        times = rng.multinomial(5, np.full(5, 0.2), size=500) / 5
        low, high = np.quantile(times @ x, [0.025, 0.975])
        inside += low <= 0 <= high
        low, high = estimate(Replicates(tuple(range(5)), x, np.empty((5, 0)))).interval()
        kept += low <= 0 <= high
    assert inside / 400 < 0.88
    assert 0.92 <= kept / 400 <= 0.98


def test_differences_are_paired_by_seed_and_problem() -> None:
    rng = np.random.default_rng(0)
    shared = drawn(rng, 5, 0.2, 0.3, 0.0)
    a, b = (measured(shared + drawn(rng, 5, 0.005, 0.0, 0.02) + shift) for shift in (0.04, 0.0))
    found, paired = difference(a, b)
    assert paired
    assert found.value == pytest.approx(0.04, abs=0.02)
    assert found.se < 0.01 < estimate(a).se
    assert found.p < 0.05
    # Runs of other seeds have only the problems in common.
    other = Replicates(tuple(range(10, 15)), b.point, b.draws, b.problems)
    unpaired, paired = difference(a, other)
    assert not paired
    assert unpaired.value == pytest.approx(found.value)
    assert unpaired.se > 5 * found.se


def test_false_findings_after_correction_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(150):
        runs = [measured(drawn(rng, 5, 0.03, 0.0, 0.1)) for _ in range(4)]
        p = [difference(each, runs[0])[0].p for each in runs[1:]]
        false += min(holm(p)) < 0.05
    assert false / 150 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 150)


def test_holm_is_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_levels([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_value_and_bonferronis_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    assert all(raw <= c <= min(1.0, raw * len(p)) + 1e-12 for raw, c in zip(p, corrected, strict=True))
    order = np.argsort(p, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= -1e-12)
    # An interval at the level of its step excludes 0 exactly where the corrected value is significant.
    for raw, c, level in zip(p, corrected, holm_levels(p), strict=True):
        assert (raw < level) == (c < 0.05) or raw == pytest.approx(level) or c == pytest.approx(0.05)


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=4, max_size=4), min_size=2, max_size=5),
    st.floats(-3, 3),
    st.floats(0.1, 4),
)
def test_an_interval_moves_and_grows_with_its_numbers(rows: list[list[float]], shift: float, scale: float) -> None:
    weights = problem_weights(4, resamples=50) / 4
    x = np.array(rows)

    def interval(values: np.ndarray) -> tuple[float, float]:
        made = Replicates(tuple(range(len(values))), values.mean(1), values @ weights.T, 4)
        return estimate(made).interval()

    low, high = interval(x)
    assert low <= x.mean() + 1e-9
    assert high >= x.mean() - 1e-9
    moved = interval(scale * x + shift)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-6)
    flipped = interval(-x)
    assert flipped == pytest.approx((-high, -low), abs=1e-6)


def test_one_seed_has_the_error_of_its_problems_and_of_nothing_else() -> None:
    x = np.random.default_rng(0).normal(0, 1, (1, PROBLEMS))
    found = estimate(measured(x))
    assert found.seeds == 1
    assert found.se == pytest.approx(x.std(ddof=1) / math.sqrt(PROBLEMS), rel=0.2)
    assert math.isnan(found.seed_variance)
    assert seeds_to_show(found) is None
    alone = estimate(Replicates((0,), np.array([3.0]), np.empty((1, 0))))
    assert alone.value == 3.0
    assert all(math.isnan(end) for end in alone.interval())
    assert math.isnan(alone.p)


def test_runs_that_were_not_measured_are_left_out() -> None:
    point = np.array([1.0, math.nan, 3.0])
    found = estimate(Replicates((0, 1, 2), point, np.empty((3, 0))))
    assert (found.value, found.seeds) == (2.0, 2)
    assert math.isnan(estimate(Replicates((), np.empty(0), np.empty((0, 0)))).value)


def test_the_number_of_seeds_that_is_named_shows_the_difference_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(0)
    effect, of_seeds = 1.0, 1.2
    count = seeds_to_show(Estimate(effect, ((of_seeds**2 / 3, 2.0),), of_seeds**2, 0.0, 3, 0))
    assert count is not None

    def power(seeds: int) -> float:
        shown = 0
        for _ in range(200):
            made = Replicates(tuple(range(seeds)), rng.normal(effect, of_seeds, seeds), np.empty((seeds, 0)))
            shown += estimate(made).p < 0.05
        return shown / 200

    assert 0.7 <= power(count) <= 0.92
    assert power(max(2, count // 2)) < 0.7


def test_more_seeds_do_not_help_where_problems_are_too_few() -> None:
    found = estimate(measured(drawn(np.random.default_rng(0), 5, 0.0, 0.5, 0.0) + 0.01))
    assert found.problem_variance > 100 * found.seed_variance
    assert seeds_to_show(found) is None


@pytest.mark.parametrize("right", [0, 1, 2, 5, 10, 19, 20])
def test_an_interval_of_a_share_is_that_of_wilson(right: int) -> None:
    """Its ends are the shares from which the one that was found lies 1.96 standard errors away."""
    low, high = mean_interval(np.repeat([1.0, 0.0], [right, 20 - right]), shares=True)
    for end in (low, high):
        if 0 < end < 1:
            assert abs(right / 20 - end) == pytest.approx(NORMAL * math.sqrt(end * (1 - end) / 20), rel=1e-6)
    assert 0 <= low <= right / 20 <= high <= 1
    assert low < high


@pytest.mark.parametrize("truth", [0.02, 0.2, 0.5, 0.95])
def test_intervals_of_what_is_right_or_wrong_cover_the_truth_as_often_as_they_say(truth: float) -> None:
    """Counted, not drawn: with 40 problems Wilson's interval covers between 92 % and 98 %."""
    covered = 0.0
    for right in range(41):
        low, high = mean_interval(np.repeat([1.0, 0.0], [right, 40 - right]), shares=True)
        chance = math.comb(40, right) * truth**right * (1 - truth) ** (40 - right)
        covered += chance * (low <= truth <= high)
    assert 0.92 < covered < 0.99


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.95])
def test_intervals_of_shares_of_completions_cover_the_truth_as_often_as_they_say(truth: float) -> None:
    """Of each of 40 problems that are all as hard, eight completions."""
    rng = np.random.default_rng(0)
    ends = [mean_interval(rng.binomial(8, truth, 40) / 8, shares=True) for _ in range(600)]
    assert np.mean([low <= truth <= high for low, high in ends]) > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


def test_an_interval_of_a_mean_is_that_of_student_or_none() -> None:
    low, high = mean_interval(np.array([2.0, 4.0, 6.0]), shares=False)
    assert (low, high) == pytest.approx((4 - 4.302653 * 2 / math.sqrt(3), 4 + 4.302653 * 2 / math.sqrt(3)), rel=1e-4)
    for values in ([], [3.0], [3.0, 3.0, 3.0]):
        assert all(math.isnan(end) for end in mean_interval(np.array(values), shares=False))
    assert all(math.isnan(end) for end in mean_interval(np.array([]), shares=True))
    assert mean_interval(np.array([-1.0, 0.5]), shares=True) == mean_interval(np.array([-1.0, 0.5]), shares=False)


def test_a_difference_of_shares_that_never_vary_has_an_interval_too() -> None:
    none, every = (estimate(Replicates((0, 1), np.full(2, x), np.full((2, 50), x), 32)) for x in (0.0, 1.0))
    assert (none.se, every.se) == (0, 0)
    assert share_difference(none, none) == pytest.approx((-0.1072, 0.1072), abs=1e-4)
    assert share_p(none, none) == pytest.approx(1.0)
    low, high = share_difference(every, none)
    assert 0.8 < low < high
    assert share_p(every, none) < 1e-6
    # With two problems chance may have done it.
    few, all_of_few = (estimate(Replicates((0, 1), np.full(2, x), np.full((2, 50), x), 2)) for x in (0.0, 1.0))
    p = share_p(all_of_few, few)
    assert 0.005 < p < 0.2
    assert min(map(abs, share_difference(all_of_few, few, p))) == pytest.approx(0, abs=1e-6)
