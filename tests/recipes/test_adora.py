"""ADORA's identities: one weight a group, and none of it where a prompt's lengths or difficulty say otherwise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.adora import RELEASED, WEIGHTS, difficulty_advantage, group_weights, length_advantage
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (6, 2), (3, 3, 3)])
VARIANTS = st.sampled_from(list(WEIGHTS))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, variant=VARIANTS)
def test_equal_weights_are_the_base_method(seed: int, groups: tuple[int, ...], variant: str) -> None:
    batch = random_batch(seed, groups=groups)
    weighted = registry.method("adora", variant=variant, weight_tas=1.0, weight_tds=1.0).bind().assign(batch)
    assert torch.equal(weighted.advantages, registry.method("grpo").bind().assign(batch).advantages)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, variant=VARIANTS)
def test_a_group_shares_one_of_two_weights_and_sums_to_zero(seed: int, groups: tuple[int, ...], variant: str) -> None:
    batch = random_batch(seed, groups=groups, empty=False)
    base = registry.method("grpo").bind().assign(batch).advantages[:, 0]
    found = registry.method("adora", variant=variant).bind().assign(batch).advantages[:, 0]
    assert (group_sum(found, batch.groups).abs() < 1e-9).all()
    weight = (found / base)[base != 0]
    group = batch.groups.index[base != 0]
    allowed = torch.tensor(WEIGHTS[variant], dtype=torch.float64)
    assert (torch.isclose(weight[:, None], allowed, rtol=1e-9)).any(1).all()
    for g in group.unique():
        assert weight[group == g].max() - weight[group == g].min() < 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, variant=VARIANTS, more=st.integers(1, 1000))
def test_only_differences_of_length_matter(seed: int, variant: str, more: int) -> None:
    batch = random_batch(seed)
    longer = batch.with_rollouts(length=batch.lengths + more)
    shares = [length_advantage(b, variant=variant, correct_above=0.5) for b in (batch, longer)]
    assert torch.equal(*shares)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, tau=st.floats(0, 1))
def test_the_criteria_join(seed: int, tau: float) -> None:
    batch = random_batch(seed, groups=(4, 4, 4, 4))
    weights = {v: group_weights(batch, variant=v, tau=tau) == 2.0 for v in ("and", "or", "length", "difficulty")}
    assert torch.equal(weights["and"], weights["length"] & weights["difficulty"])
    assert torch.equal(weights["or"], weights["length"] | weights["difficulty"])
    assert torch.equal(weights["difficulty"], difficulty_advantage(batch, correct_above=0.5, tau=tau))


@pytest.mark.parametrize("variant", list(WEIGHTS))
def test_failures_that_were_cut_off(variant: str) -> None:
    """Without max_len, the released variants leave out what ended at the token limit; the paper's criteria do not."""
    batch = Batch.of(
        torch.ones(3, 4),
        group=torch.zeros(3),
        rewards=torch.tensor([1.0, 0.0, 0.0]).double(),
        truncated=torch.tensor([0.0, 1.0, 0.0]),
    ).with_rollouts(length=torch.tensor([3.0, 9.0, 1.0]))
    longer = bool(length_advantage(batch, variant=variant, correct_above=0.5))
    assert longer == (variant in RELEASED)
    assert not bool(length_advantage(batch, variant=variant, correct_above=0.5, max_len=10))


def test_default_weights_go_with_the_variant() -> None:
    assert registry.method("adora").credit[0].hyper["weight_tas"] == 2.0
    vision = registry.method("adora(variant='vlm', weight_tds=0.3)").credit[0].hyper
    assert (vision["weight_tas"], vision["weight_tds"]) == (1.0, 0.3)
