"""Pref-GRPO: the reward is the share of pairwise comparisons won in the group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.pref_grpo import with_win_rate
from cohort.reductions.groups import group_mean, group_sum
from cohort.rollouts.batching import make_batch
from cohort.signals.preference import tally
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import access_of, info_of, random_batch
from tests.recipes import judges

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (6, 5, 2), (3,)])


def rates(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("pref-grpo", **hyper).bind(info=info_of(batch)).shape(batch).rewards


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHAPES, st.booleans())
def test_the_mean_win_rate_of_a_group_is_one_half(seed: int, groups: tuple[int, ...], ties: bool) -> None:
    batch = random_batch(seed, groups=groups, binary=ties)
    mean = group_mean(rates(batch, round_decimals=None), batch.groups)
    assert torch.allclose(mean, torch.full_like(mean, 0.5))


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHAPES)
def test_only_the_order_of_scores_matters(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups, binary=False)
    want = rates(batch, round_decimals=None)
    stretched = batch.replace(rewards=torch.exp(3 * batch.rewards) + 1000)
    assert torch.equal(rates(stretched, round_decimals=None), want)
    for group in range(batch.groups.count):
        mine = want[batch.groups.index == group]
        assert torch.allclose(mine.sort().values, torch.linspace(0, 1, mine.numel()).double())


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHAPES)
def test_a_judge_that_compares_scores_is_the_comparison_of_scores(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    score, label = batch.rewards.tolist(), batch.group.tolist()
    pairs = [(i, j) for j in range(batch.size) for i in range(j) if label[i] == label[j]]
    verdicts = [None if score[i] == score[j] else int(score[j] > score[i]) for i, j in pairs]
    wins, comparisons = tally(batch.size, pairs, verdicts)
    judged = batch.with_rollouts(wins=wins, comparisons=comparisons)
    assert torch.equal(rates(judged, judge="judge.py:better"), rates(batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_advantages_of_a_group_sum_to_zero(seed: int, several: bool) -> None:
    hyper = {"weights": (0.4, 0.6, 0.1)} if several else {"std_ddof": 1, "adv_eps": 1e-8}
    made = registry.method("pref-grpo", **hyper).bind().prepare(random_batch(seed)).batch
    total = group_sum(made["outcome_advantage"], made.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-6)


def test_several_rewards_are_normalised_added_and_held() -> None:
    batch = random_batch(3, components=1)
    made = registry.method("pref-grpo", weights=(0.5, 2.0)).bind().prepare(batch).batch
    assert torch.equal(with_win_rate(made)["reward_components"][:, 0], rates(batch))
    assert torch.equal(with_win_rate(made)["reward_components"][:, 1:], batch["reward_components"])
    held = registry.method("pref-grpo", weights=(0.5, 2.0), advantage_clip=0.7).bind().prepare(batch).batch
    assert torch.equal(held["outcome_advantage"], made["outcome_advantage"].clamp(-0.7, 0.7))
    with pytest.raises(MethodError, match=r"3 weights for 2 rewards: .*\(win_rate, reward0\)"):
        registry.method("pref-grpo", weights=(1, 1, 1)).bind(info=info_of(batch)).prepare(batch)
    with pytest.raises(MethodError, match="give their weights too"):
        registry.method("pref-grpo", advantage_clip=5.0)


def test_a_component_can_be_compared() -> None:
    batch = random_batch(3)
    parts = batch["reward_components"]
    assert torch.equal(rates(batch, compare="reward1"), rates(batch.replace(rewards=parts[:, 1])))
    assert registry.method("pref-grpo(compare='reward1')").components == {"reward1": "win_rate"}


def test_a_judge_is_asked_about_every_pair_of_a_group() -> None:
    rows = [{"answer": "7"}, {"answer": "7"}, {"answer": "7"}, {"answer": "1"}, {"answer": "1"}]
    access = access_of(["7", "8", "7", "2", "1"], groups=[0, 0, 0, 1, 1], columns=rows)
    method = registry.method("pref-grpo", judge=f"{judges.__file__}:better")
    made = method.bind().on_scored(make_batch(access.rollouts, {}), access)
    assert made["wins"].tolist() == [1.5, 0, 1.5, 0, 1]
    assert made["comparisons"].tolist() == [2, 2, 2, 1, 1]
    assert torch.allclose(method.bind().shape(made).rewards, torch.tensor([0.75, 0, 0.75, 0, 1]))


def test_a_judge_is_looked_for_before_anything_is_sampled() -> None:
    check_method(registry.method("pref-grpo"), make_config({}))
    check_method(registry.method("pref-grpo", judge=judges.better), make_config({}))
    with pytest.raises(UsageError, match=r"judges\.py has no function 'worse' \(it has: .*better"):
        check_method(registry.method("pref-grpo", judge=f"{judges.__file__}:worse"), make_config({}))
