"""ASPO: code early, without ever punishing a correct answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.aspo import find_code
from cohort.reductions.groups import group_flat, group_sum
from cohort.types import Batch
from tests.helpers import access_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
DELTAS = st.floats(-5.0, -0.01)
BOUNDS = st.floats(0.01, 0.95)


def shaped(batch: Batch, **hyper: float) -> torch.Tensor:
    return registry.method("aspo", **hyper).bind().assign(batch).advantages


def base(batch: Batch) -> torch.Tensor:
    return registry.method("grpo").bind().assign(batch).advantages


@settings(max_examples=15, deadline=None)
@given(SEEDS, DELTAS, BOUNDS)
def test_no_slope_or_no_bound_is_the_base(seed: int, delta: float, k: float) -> None:
    batch = batch_for("aspo", seed=seed)
    assert torch.equal(shaped(batch, delta=0.0, k=k), base(batch))
    assert torch.equal(shaped(batch, delta=delta, k=0.0), base(batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS, DELTAS, BOUNDS)
def test_signs_stay_and_shifts_are_bounded(seed: int, delta: float, k: float) -> None:
    batch = batch_for("aspo", seed=seed, groups=(6, 5, 3))
    value, plain = shaped(batch, delta=delta, k=k), base(batch)
    assert torch.equal(value.sign(), plain.sign())
    assert bool(((value - plain).abs() <= k * plain.abs() + 1e-12).all())
    eligible = (batch["accuracy"] > 0) & (batch["first_code_position"] >= 0) & batch.mask.any(1)
    assert torch.equal(value[~eligible], plain[~eligible])
    flat = group_flat(batch.rewards, batch.groups)[batch.groups.index]
    assert not value[flat].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-0.2, -0.01))
def test_small_shifts_sum_to_zero_and_favour_early_code(seed: int, delta: float) -> None:
    batch = batch_for("aspo", seed=seed, groups=(7, 6), empty=False)
    batch = batch.replace(mask=torch.ones_like(batch.mask))
    change = (shaped(batch, delta=delta, k=0.99) - base(batch))[:, 0]
    bound = 0.99 * base(batch)[:, 0].abs()
    inside = group_sum((change.abs() >= bound - 1e-12).double() * (bound > 0), batch.groups) == 0
    assert torch.allclose(group_sum(change, batch.groups)[inside], torch.zeros(int(inside.sum()), dtype=torch.float64))
    for group in range(2):
        here = (batch.groups.index == group) & (batch["accuracy"] > 0) & (batch["first_code_position"] >= 0)
        order = batch["first_code_position"][here].argsort()
        assert bool((change[here][order].diff() <= 1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 1000), DELTAS, BOUNDS)
def test_only_proportions_matter(seed: int, factor: int, delta: float, k: float) -> None:
    batch = batch_for("aspo", seed=seed)
    longer = batch.with_rollouts(
        first_code_position=torch.where(batch["first_code_position"] < 0, -1, factor * batch["first_code_position"]),
        length=factor * batch.lengths,
    )
    assert torch.allclose(shaped(longer, delta=delta, k=k), shaped(batch, delta=delta, k=k))


def test_positions_come_from_the_texts() -> None:
    texts = ["think. ```python\n1```", "no code", "```x``` then ```y```", "<tool>1"]
    access = access_of(texts)
    batch = Batch(mask=torch.ones(4, 40))
    assert find_code(batch, access)["first_code_position"].tolist() == [7, -1, 0, -1]
    other = registry.method("aspo(code_pattern='<tool>|code')").bind().on_scored(batch, access)
    assert other["first_code_position"].tolist() == [-1, 3, -1, 0]


def test_tokens_that_something_else_wrote_do_not_count() -> None:
    access = access_of(["given ```1```"])
    access.rollouts[0].mask[:4] = [0] * 4
    assert find_code(Batch(mask=torch.ones(1, 14)), access)["first_code_position"].tolist() == [2]


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(MethodError, match="no regular expression"):
        registry.method("aspo", code_pattern="(")
