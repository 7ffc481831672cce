"""SSL: tiers of how near a trajectory came, below the outcome."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.ssl_sweet_spot import click, grid, leading, mean_score, tier_value
from cohort.signals.components import component
from tests.helpers import random_batch
from tests.traits import batch_for, info_for

SEEDS = st.integers(0, 10_000)
UNIT = st.floats(0, 1)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 9), st.floats(0, 0.99))
def test_the_outcome_orders_first_and_the_tier_within_it(seed: int, tiers: int, alpha: float) -> None:
    batch = batch_for("ssl-sweet-spot", seed=seed)
    info = info_for(batch, "ssl-sweet-spot")
    rewards, right = (
        registry.method("ssl-sweet-spot", tiers=tiers, alpha=alpha).bind(info=info).shape(batch).rewards,
        batch["accuracy"],
    )
    better = (right[:, None] > right[None, :]).nonzero()
    assert bool((rewards[better[:, 0]] > rewards[better[:, 1]]).all())
    nearer = component(batch, "proximity", info)
    same = ((right[:, None] == right[None, :]) & (nearer[:, None] >= nearer[None, :])).nonzero()
    assert bool((rewards[same[:, 0]] >= rewards[same[:, 1]]).all())
    if alpha == 0:
        assert torch.equal(rewards, right)


@settings(max_examples=15, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=20))
def test_two_tiers_are_a_threshold_and_many_are_the_score(values: list[float]) -> None:
    scores = torch.tensor([*values, 0.0, 1.0, 0.5]).double()
    assert torch.equal(tier_value(scores, tiers=2), (scores >= 0.5 - 1e-9).double())
    assert torch.allclose(tier_value(scores, tiers=10**6), scores, atol=1e-5)
    for tiers in (2, 3, 4, 7):
        value = tier_value(scores.sort().values, tiers=tiers)
        assert bool((value.diff() >= 0).all())
        assert (value[0], value[-1]) == (0, 1)


@pytest.mark.parametrize("tiers", range(2, 12))
def test_a_border_belongs_to_the_zone_above_in_both_precisions(tiers: int) -> None:
    borders = torch.arange(tiers).double() / tiers
    want = torch.arange(tiers) / (tiers - 1)
    assert torch.allclose(tier_value(borders, tiers=tiers).float(), want)
    assert torch.allclose(tier_value(borders.float(), tiers=tiers), want)


@settings(max_examples=15, deadline=None)
@given(UNIT, UNIT, st.floats(0.2, 3), st.floats(0.5, 50), st.floats(0.5, 50))
def test_a_click_counts_by_its_distance_from_the_centre(x: float, y: float, spread: float, w: float, h: float) -> None:
    box = (10.0, -5.0, 10 + w, -5 + h)
    at = [
        click((10 + w / 2 * (1 + x * f), -5 + h / 2 * (1 + y * f)), box, spread=spread) for f in (0.0, 0.5, 1.0, -1.0)
    ]
    assert at[0] == 1
    assert 1 >= at[1] >= at[2] >= 0
    assert at[2] == pytest.approx(at[3])
    # On the border of the box half its side counts as 1 / spread standard deviations, whatever the box's size.
    assert click((10 + w, -5 + h / 2), box, spread=spread) == pytest.approx(2.718281828 ** (-0.5 / spread**2))
    assert click((3.0, 3.0), (3.0, 3.0, 3.0, 3.0)) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), SEEDS)
def test_grids_are_compared_block_by_block(height: int, width: int, block: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    gold, answer = (torch.randint(0, 2, (height, width), generator=g).tolist() for _ in range(2))
    assert grid(gold, gold, block=block) == 1
    assert grid(None, gold, block=block) == grid(gold[:-1], gold, block=block) == 0
    assert 0 <= grid(answer, gold, block=block) <= 1
    same = mean_score([float(a == b) for r, s in zip(answer, gold, strict=True) for a, b in zip(r, s, strict=True)])
    assert grid(answer, gold, block=1) == pytest.approx(same)
    assert grid(answer, gold, block=8) == pytest.approx(same)


def test_steps_count_until_the_first_wrong_one() -> None:
    assert [leading(s) for s in ([], [0, 1], [1, 0], [1, 1, 0, 1], [1])] == [0, 0, 0.5, 0.5, 1]
    assert mean_score([]) == 0


def test_an_all_wrong_group_is_ordered() -> None:
    batch = batch_for("ssl-sweet-spot", seed=4, groups=(6,), empty=False)
    batch = batch.replace(rewards=torch.zeros(6).double(), accuracy=torch.zeros(6).double())
    made = registry.method("ssl-sweet-spot").bind(info=info_for(batch, "ssl-sweet-spot"))
    advantages = made.prepare(batch).assigned["outcome_advantage"]
    tier = tier_value(component(batch, "proximity", made.info), tiers=4)
    assert advantages[tier.argmax()] > 0 > advantages[tier.argmin()]
    assert not registry.method("grpo").bind().assign(batch)["outcome_advantage"].any()


def test_the_reward_is_asked_for_by_name() -> None:
    made = registry.method("ssl-sweet-spot(proximity='near')")
    assert made.components == {"near": "sweet_spot"}
    with pytest.raises(UsageError, match="no reward 'near' here"):
        made.bind().shape(random_batch(0))
