"""Intervals, tests and sample sizes for runs that share seeds and evaluation problems. numpy alone.

What is measured of a run is a mean over problems, or another function of how often each problem counts, and a method is
measured by several runs, one a seed. Both seeds and problems are a sample, so both are resampled, and together for all
methods: a difference is taken between runs of the same seed on the same resampled problems.

The mean's error has two parts, from seeds and from problems, each with its own degrees of freedom. That of problems is the
variance over resamples of problems, less what belongs to pairs of seed and problem (the luck of sampled completions), which
between seeds shows as well. That of seeds, of which a mean is linear, is known without drawing: resampling S runs gives the
variance (S - 1) / S s^2 / S, made whole by S / (S - 1). An interval adds the squares of each part's own reach,

    reach^2 = t(S - 1)^2 s^2 / S + t(P - 1)^2 var_problems

(MOVER: Zou and Donner, Statistics in Medicine 27 (2008)). Plain percentile intervals would not do: of five seeds they cover
83 % where they promise 95 % (Hesterberg, arXiv:1411.5279, on why); these cover 94 to 98 % from two seeds on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2000
ALPHA = 0.05
POWER = 0.8
MOST_DF = 1e6


@lru_cache(maxsize=64)
def _student(df: float) -> tuple[Floats, Floats]:
    """(angle, probability) of Student's t: with x = sqrt(df) tan(angle), its density is cos(angle)^(df - 1)."""
    # Beyond a million degrees of freedom it is normal to six digits, and the angles would all be near 0.
    df = min(df, MOST_DF)
    reach = min(math.pi / 2, 40 / math.sqrt(df))
    angle = np.linspace(0.0, reach, 20001)
    density = np.cos(angle) ** (df - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angle, 0.5 + 0.5 * area / area[-1]


def t_quantile(probability: float, df: float) -> float:
    """Of Student's t with `df` (1 or more) degrees of freedom, at a probability in (0, 1)."""
    angle, mass = _student(df)
    at = float(np.interp(max(probability, 1 - probability), mass, angle))
    size = math.sqrt(min(df, MOST_DF)) * math.tan(at)
    return size if probability >= 0.5 else -size


NORMAL = t_quantile(1 - ALPHA / 2, MOST_DF)


def share_interval(value: float, reach: float, problems: int, quantile: float = NORMAL) -> tuple[float, float]:
    """(low, high) around a mean of numbers between 0 and 1 that was measured on some problems; NaN where it was on none.

    The score interval of Wilson, Journal of the American Statistical Association 22 (1927), for as many problems as would have
    the error that was found: at 0 of 32 it reaches from 0 to 0.107, where resampling finds no error at all.

    Args:
        reach: half the width of the interval by the standard error; 0 or NaN where it says nothing.
        quantile: of the normal distribution, for a share whose standard error says nothing.
    """
    if math.isnan(value) or problems < 1:
        return math.nan, math.nan
    spread = value * (1 - value)
    squared = reach**2 / spread if spread > 0 and reach > 0 else quantile**2 / problems
    middle = (value + squared / 2) / (1 + squared)
    width = math.sqrt(squared * spread + squared**2 / 4) / (1 + squared)
    return max(0.0, middle - width), min(1.0, middle + width)


def mean_interval(values: Floats, *, shares: bool) -> tuple[float, float]:
    """95 % interval around the mean of [P] numbers, one a problem; NaN where they say nothing of its error.

    Args:
        shares: the numbers are shares (`share_interval`) if all of them lie between 0 and 1; else Student's t is taken.
    """
    count = len(values)
    if not count:
        return math.nan, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
    if shares and ((values >= 0) & (values <= 1)).all():
        # What is right or wrong has the error of a share, with nothing to be estimated.
        exact = bool(((values == 0) | (values == 1)).all())
        reach = math.nan if count == 1 else error * t_quantile(1 - ALPHA / 2, count - 1)
        return share_interval(mean, NORMAL * math.sqrt(mean * (1 - mean) / count) if exact else reach, count)
    if count == 1 or error == 0:
        return math.nan, math.nan
    reach = error * t_quantile(1 - ALPHA / 2, count - 1)
    return mean - reach, mean + reach


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's procedure, in the order given; NaN stays, and does not count.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): p_(j) (m - j + 1), made to rise with the rank, at most 1.
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    out, so_far = list(p), 0.0
    for rank, (value, i) in enumerate(known):
        so_far = max(so_far, min(1.0, value * (len(known) - rank)))
        out[i] = so_far
    return out


def holm_levels(p: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The level at which Holm's procedure tests each p-value; once it stops, that of the step where it does.

    An interval at 1 - level excludes 0 exactly where the corrected p-value is below alpha (Serlin, Journal of Experimental
    Education 61 (1993)).
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    out, level = [alpha] * len(p), alpha
    stopped = False
    for rank, (value, i) in enumerate(known):
        level = level if stopped else alpha / (len(known) - rank)
        stopped = stopped or value >= level
        out[i] = level
    return out


def problem_weights(problems: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """[B, P] how often each problem stands in each resample, drawn with replacement."""
    rng = np.random.default_rng([seed, problems])
    return rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(np.float64)


@dataclass(frozen=True)
class Replicates:
    """A measure of one method's runs.

    Attributes:
        seeds: of the runs, S of them.
        point: [S] the measure of each run.
        draws: [S, B] the same with problems resampled; [S, 0] where the measure has no problems, as seconds have none.
        problems: number of problems; 0 without.
    """

    seeds: tuple[int, ...]
    point: Floats
    draws: Floats
    problems: int = 0

    def defined(self) -> Replicates:
        """The runs of which the measure is a number."""
        return self.of([seed for seed, value in zip(self.seeds, self.point, strict=True) if not math.isnan(value)])

    def of(self, seeds: Sequence[int]) -> Replicates:
        """The runs of some seeds, in their order."""
        at = [self.seeds.index(seed) for seed in seeds]
        return replace(self, seeds=tuple(seeds), point=self.point[at], draws=self.draws[at])

    def minus(self, other: Replicates) -> Replicates:
        """Differences between runs of the same seeds on the same problems."""
        shared = [seed for seed in self.seeds if seed in other.seeds]
        a, b = self.of(shared), other.of(shared)
        return Replicates(a.seeds, a.point - b.point, a.draws - b.draws, min(a.problems, b.problems))


@dataclass(frozen=True)
class Estimate:
    """A mean over runs.

    Attributes:
        value: the mean.
        parts: (variance, degrees of freedom) of each part of its error; empty where nothing is known of it.
        seed_variance: variance between seeds of one run's measure; NaN with a single seed.
        problem_variance: variance of the mean that comes from which problems were drawn, and does not fall with seeds.
        seeds, problems: numbers of them.
    """

    value: float
    parts: tuple[tuple[float, float], ...] = ()
    seed_variance: float = math.nan
    problem_variance: float = 0.0
    seeds: int = 0
    problems: int = 0

    @property
    def se(self) -> float:
        """Standard error; NaN where nothing is known of it."""
        return math.sqrt(sum(variance for variance, _ in self.parts)) if self.parts else math.nan

    def reach(self, probability: float) -> float:
        """Half the width of an interval that the given quantile of Student's t stands for."""
        return math.sqrt(sum(t_quantile(probability, df) ** 2 * variance for variance, df in self.parts))

    def interval(self, level: float = ALPHA) -> tuple[float, float]:
        """(low, high) at 1 - level; NaN where nothing is known of the error."""
        if not self.parts:
            return (math.nan, math.nan)
        reach = self.reach(1 - level / 2)
        return (self.value - reach, self.value + reach)

    @property
    def p(self) -> float:
        """Two-sided p-value of the mean being 0: the level whose interval ends there. NaN where nothing is known."""
        if not self.parts or math.isnan(self.value):
            return math.nan
        if self.se == 0 or self.value == 0:
            return float(self.value == 0)
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reach(1 - middle / 2) > abs(self.value) else (low, middle)
        return high


def estimate(measured: Replicates) -> Estimate:
    """The mean over runs, with its error from resampling seeds and problems.

    With a single run its error is that of its problems alone. NaN without runs.
    """
    measured = measured.defined()
    count, problems = len(measured.seeds), measured.problems
    if not count:
        return Estimate(math.nan, problems=problems)
    between = float(measured.point.var(ddof=1)) if count > 1 else math.nan
    parts = [(between / count, count - 1.0)] if count > 1 else []
    draws = measured.draws[:, ~np.isnan(measured.draws).any(0)]
    of_problems = 0.0
    # A single problem is no sample of problems.
    if problems > 1 and draws.shape[1] > 1:
        of_problems = float(draws.mean(0).var(ddof=1))
        if count > 1:
            # Between runs on resampled problems, what belongs to pairs of seed and problem shows twice; else once.
            of_pairs = (float(draws.var(0, ddof=1).mean()) - between) / count
            of_problems = max(0.0, of_problems - max(0.0, of_pairs))
        parts.append((of_problems, problems - 1.0))
    return Estimate(float(measured.point.mean()), tuple(parts), between, of_problems, count, problems)


def difference(a: Replicates, b: Replicates) -> tuple[Estimate, bool]:
    """(a - b, paired): between runs of the same seeds where there are at least two, or all; else between the means of
    all, on the same resampled problems."""
    a, b = a.defined(), b.defined()
    paired = a.minus(b)
    if len(paired.seeds) > 1 or set(a.seeds) == set(b.seeds):
        return estimate(paired), True
    mine, theirs = estimate(a), estimate(b)
    value = mine.value - theirs.value
    if not (mine.parts and theirs.parts):
        return Estimate(value, problems=mine.problems), False
    parts = [(each.seed_variance / each.seeds, each.seeds - 1.0) for each in (mine, theirs) if each.seeds > 1]
    of_problems = 0.0
    if a.draws.shape[1] and a.draws.shape[1] == b.draws.shape[1]:
        of_problems = float(np.nanvar(a.draws.mean(0) - b.draws.mean(0), ddof=1))
        parts.append((of_problems, a.problems - 1.0))
    known = [each.seed_variance for each in (mine, theirs) if each.seeds > 1]
    return (
        Estimate(
            value,
            tuple(parts),
            sum(known) if known else math.nan,
            of_problems,
            min(mine.seeds, theirs.seeds),
            a.problems,
        ),
        False,
    )


def share_difference(a: Estimate, b: Estimate, level: float = ALPHA) -> tuple[float, float]:
    """Interval of the difference of two shares of which nothing but the number of problems is known, by MOVER."""
    quantile = t_quantile(1 - level / 2, MOST_DF)
    (a_low, a_high), (b_low, b_high) = (
        share_interval(each.value, math.nan, each.problems, quantile) for each in (a, b)
    )
    value = a.value - b.value
    return (
        value - math.hypot(a.value - a_low, b_high - b.value),
        value + math.hypot(a_high - a.value, b.value - b_low),
    )


def share_p(a: Estimate, b: Estimate) -> float:
    """Two-sided p-value of such a difference: the level whose interval ends at 0."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        ends = share_difference(a, b, middle)
        low, high = (middle, high) if ends[0] <= 0 <= ends[1] else (low, middle)
    return high


def seeds_to_show(found: Estimate, *, level: float = ALPHA, power: float = POWER, most: int = 1000) -> int | None:
    """Seeds with which a difference of the size that was found would be shown, with the chance `power`.

    None if no number of seeds would do (what problems contribute does not fall with seeds), if more than `most` would be
    needed, or if nothing is known of the variance between seeds.
    """
    if math.isnan(found.seed_variance) or found.value == 0 or not found.parts:
        return None

    def shown(count: int) -> bool:
        parts = [(found.seed_variance / count, count - 1.0)]
        if found.problems > 1:
            parts.append((found.problem_variance, found.problems - 1.0))
        then = replace(found, parts=tuple(parts))
        return abs(found.value) >= then.reach(1 - level / 2) + then.reach(power)

    if not shown(most):
        return None
    low, high = 1, most  # not enough, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high
