"""RiskPO's identities, its bundles and its tracked quantiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.reductions.groups import group_bundles, group_quantile, group_std, group_sum
from cohort.reductions.quantiles import LEVELS, track
from cohort.types import Batch
from tests import micro
from tests.helpers import random_batch
from tests.stepping import run_of

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3, 3), (3, 3), (6, 2, 1)])
KEY = "advantage/mixed_value_at_risk"


def of_exams(batch: Batch, low: float, high: float, **hyper: Any) -> torch.Tensor:
    """[N] A_j with tracked quantiles `low` and `high` at the levels 0.2 and 0.8, before credit."""
    quantiles = torch.linspace(low - (high - low) / 4, high + (high - low) / 4, 19, dtype=torch.float64)
    method = registry.method("riskpo", credit="uniform", **hyper)
    return method.bind({KEY: {"quantiles": quantiles}}).assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, omega=st.floats(0, 5), natural=st.booleans())
def test_slopes_of_the_utility(seed: int, omega: float, natural: bool) -> None:
    """omega / (lo (omega + 1)) below q_lo, 1 / ((hi - lo)(omega + 1)) between, 0 above q_hi."""
    rewards = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    batch = Batch.of(torch.ones(40, 1), group=torch.zeros(40), rewards=rewards)
    how = {"omega": omega, "natural_baseline": natural, "bundle_size": 1, "adv_eps": 1e-12}
    value = of_exams(batch, -0.5, 0.5, **how) * rewards.std()
    for inside, slope in (
        (rewards < -0.5, omega / (0.2 * (omega + 1))),
        ((rewards > -0.5) & (rewards < 0.5), 1 / (0.6 * (omega + 1))),
        (rewards > 0.5, 0.0),
    ):
        x, y = rewards[inside], value[inside]
        if len(x) > 1:
            assert torch.allclose((y - y[0]), slope * (x - x[0]), atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, size=st.integers(1, 5), source=st.sampled_from(["tracked", "bundle", "mix"]))
def test_with_the_natural_baseline_nothing_is_pushed_up(
    seed: int, groups: tuple[int, ...], size: int, source: str
) -> None:
    batch = random_batch(seed, groups=groups)
    found = of_exams(batch, 0.5, 1.5, natural_baseline=True, bundle_size=size, quantiles=source)
    assert (found <= 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, size=st.integers(1, 5))
def test_credits_of_an_exam_sum_to_its_advantage(seed: int, groups: tuple[int, ...], size: int) -> None:
    batch = random_batch(seed, groups=groups, binary=False, empty=False)
    hyper = {"bundle_size": size, "quantiles": "bundle"}
    whole = registry.method("riskpo", credit="uniform", **hyper)
    parts = registry.method("riskpo", credit="sum-mean", **hyper)
    states = whole.init(size=1)
    rows, exam, _ = group_bundles(batch.groups, size)
    value = whole.bind(states).assign(batch).advantages[:, 0]
    credit = parts.bind(states).assign(batch).advantages[:, 0]
    first = torch.zeros(exam.count, dtype=torch.float64).scatter(0, exam.index, value[rows])
    assert torch.allclose(group_sum(credit[rows], exam), first, atol=1e-6)
    outside = torch.ones(batch.size, dtype=torch.bool).index_fill(0, rows, False)
    assert not credit[outside].any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, size=st.integers(1, 5))
def test_bundles_and_quantiles_are_those_of_a_loop(seed: int, groups: tuple[int, ...], size: int) -> None:
    batch = random_batch(seed, groups=groups, binary=False)
    rows, exam, bundle = group_bundles(batch.groups, size)
    members = [[i for i in range(batch.size) if batch.groups.index[i] == g] for g in range(batch.groups.count)]
    want = []
    for start in range(0, len(members), size):
        questions = members[start : start + size]
        want.append([[q[j] for q in questions] for j in range(min(map(len, questions)))])
    made = [sorted(rows[exam.index == e].tolist()) for e in range(exam.count)]
    assert made == [sorted(paper) for papers in want for paper in papers]
    assert bundle.index.tolist() == [b for b, papers in enumerate(want) for _ in papers]
    scores = group_sum(batch.rewards[rows], exam)
    for level in (0.0, 0.2, 0.75, 1.0):
        each = [torch.quantile(scores[bundle.index == b], level) for b in range(bundle.count)]
        assert torch.allclose(group_quantile(scores, bundle, level), torch.stack(each))


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 4), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_a_bundle_of_equal_scores(size: int, dtype: torch.dtype) -> None:
    """0 in training, however far the tracked quantiles are, and by the plain formula with its own quantiles."""
    batch = random_batch(0, groups=(4,) * size)
    batch = batch.replace(rewards=torch.full((batch.size,), 0.7, dtype=dtype))
    assert not of_exams(batch, 3.0, 4.0, bundle_size=size).any()
    assert not of_exams(batch, 3.0, 4.0, bundle_size=size, min_std=None, quantiles="bundle").any()
    assert (of_exams(batch, 30.0, 40.0, bundle_size=size, min_std=None) < -1e5).all()


def test_the_spread_credit_divides_by_the_questions_own_spread() -> None:
    batch = random_batch(3, groups=(5, 5, 5), binary=False, empty=False)
    states = registry.method("riskpo").init(size=1)
    whole, spread = (
        registry.method("riskpo", credit=credit, quantiles="bundle").bind(states).assign(batch).advantages[:, 0]
        for credit in ("uniform", "std")
    )
    std = group_std(batch.rewards, batch.groups, ddof=1)[batch.groups.index]
    assert torch.allclose(spread, whole / (std + 1e-6))


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS)
def test_tracked_quantiles_find_those_of_the_stream(seed: int) -> None:
    """They move towards the true ones, and by at most lr a step."""
    generator = torch.Generator().manual_seed(seed)
    known = track(None, torch.rand(64, generator=generator) + 0.5, lr=0.1)
    for _ in range(200):
        after = track(known, torch.rand(64, generator=generator), lr=0.1)
        assert (after - known).abs().max() <= 0.1
        known = after
    assert torch.allclose(known, torch.tensor(LEVELS, dtype=torch.float64), atol=0.15)
    assert track(torch.tensor([0.5]).double(), torch.full((4,), 0.5), lr=1.0, levels=(0.3,)) == pytest.approx(0.8)


def test_a_step_uses_the_quantiles_of_the_steps_before(micro_root: Path) -> None:
    expression = "riskpo(bundle_size=2, credit='uniform')"
    with micro.ready(micro_root, expression, steps=2, lr=1e-9) as (setup, optimizer, progress):
        assert progress.states[KEY]["quantiles"] is None
        batches = []
        for _ in range(2):
            before = progress.states
            result = micro.one_step(run_of(setup, optimizer, progress))
            assert result.batch is not None
            batches.append(result.batch)
            again = setup.method.bind(before).assign(result.batch)["outcome_advantage"]
            assert torch.equal(again, result.batch["outcome_advantage"])
        scores = []
        for batch in batches:
            rows, exam, _ = group_bundles(batch.groups, 2)
            scores.append(group_sum(batch.rewards[rows], exam))
        first = track(None, scores[0], lr=0.1)
        assert torch.equal(progress.states[KEY]["quantiles"], track(first, scores[1], lr=0.1))


def test_levels_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(MethodError, match="level_low"):
        registry.method("riskpo(level_low=0.8, level_high=0.2)")
