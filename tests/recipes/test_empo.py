"""EMPO: an answer is worth the share of the group's rollouts that mean the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.reductions.groups import group_mean
from cohort.rollouts.batching import make_batch
from cohort.signals.answers import repeats
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import access_of, random_batch
from tests.recipes import judges
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def rewards(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("empo", **hyper).bind().shape(batch).rewards


def answered(seed: int, kinds: int, groups: tuple[int, ...] = (5, 4, 3)) -> Batch:
    """Everybody answers one of some."""
    g = torch.Generator().manual_seed(seed)
    batch = random_batch(seed, groups=groups)
    return batch.with_rollouts(answer_id=torch.randint(0, kinds, (batch.size,), generator=g))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_mean_reward_is_the_probability_that_two_rollouts_agree(seed: int) -> None:
    batch = answered(seed, 3)
    got = group_mean(rewards(batch, entropy_high=math.inf), batch.groups)
    for group in range(batch.groups.count):
        _, counts = batch["answer_id"][batch.groups.index == group].unique(return_counts=True)
        share = counts.double() / counts.sum()
        assert torch.allclose(got[group], (share**2).sum())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_two_clusters_of_unequal_size_have_the_advantages_of_the_majority_vote(seed: int) -> None:
    batch = answered(seed, 2, groups=(5, 3, 7))
    mine = registry.method("empo").over(registry.method("grpo", adv_eps=1e-12)).bind().prepare(batch).batch
    vote = registry.method("ttrl", n_samples=9).over(registry.method("grpo", adv_eps=1e-12)).bind().prepare(batch).batch
    assert torch.allclose(mine.advantages, vote.advantages, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["math", "free_form"]))
def test_only_who_agrees_with_whom_matters(seed: int, variant: str) -> None:
    """Neither the names of answers, nor their order, nor the run's rewards and verifier."""
    batch = batch_for("empo", seed=seed)
    batch = batch.with_rollouts(copies_question=(torch.arange(batch.size) % 3 == 0).double())
    want = rewards(batch, variant=variant)
    ids = batch["answer_id"]
    renamed = torch.where(ids >= 0, (3 * ids + 5) % 7, -1)
    assert torch.equal(rewards(batch.with_rollouts(answer_id=renamed), variant=variant), want)
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(rewards(batch.select(order), variant=variant), want[order])
    other = batch.replace(rewards=1 - batch.rewards, accuracy=1 - batch["accuracy"])
    assert torch.equal(rewards(other, variant=variant), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_entropy_of_answers_is_pushed_down(seed: int) -> None:
    """Answers that are more frequent than the group's average one are pushed up, the others down."""
    batch = batch_for("empo", seed=seed)
    made = registry.method("empo").bind().prepare(batch).batch
    gap = made.rewards - group_mean(made.rewards, made.groups)[made.groups.index]
    assert torch.equal(made["outcome_advantage"].sign(), torch.where(gap.abs() < 1e-12, 0.0, gap).sign())
    silent = batch["answer_id"] < 0
    assert bool((made["outcome_advantage"][silent] <= 0).all())


def test_groups_outside_the_band_of_entropies_earn_nothing() -> None:
    ids = torch.tensor([0, 1, 2, 0, 0, 0, 0, 0, 1, -1, -1, -1, 4])
    group = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4])
    batch = Batch.of(torch.ones(13, 1), group=group, rewards=torch.zeros(13).double()).with_rollouts(answer_id=ids)
    third = 1 / 3
    shares = [0, 0, 0, 1, 1, 1, 2 * third, 2 * third, third, 0, 0, 0, 0]
    assert torch.allclose(rewards(batch), torch.tensor(shares).double())
    assert rewards(batch, entropy_low=0.1)[3:6].tolist() == [0, 0, 0]
    assert not rewards(batch, entropy_high=0.6)[6:9].any()
    with pytest.raises(MethodError, match="no entropy is kept"):
        registry.method("empo(entropy_low=1.0,entropy_high=0.5)")


def test_free_form_answers_are_read_from_the_texts() -> None:
    texts = ["\\boxed{Mars}", "\\boxed{mars}", "I think 4", "\\boxed{question 0}", "\\boxed{Venus}"]
    access = access_of(texts)
    batch = make_batch(access.rollouts, {})
    method = registry.method("empo", variant="free_form", equal=judges.same)
    made = method.bind().on_scored(batch, access)
    assert made["copies_question"].tolist() == [0, 0, 0, 1, 0]
    assert made["answer_id"].tolist() == [0, 0, -1, 3, 4]
    assert torch.allclose(method.bind().shape(made).rewards, torch.tensor([0.4, 0.4, -0.5, 0.0, 0.2]))
    scattered = registry.method("empo", variant="free_form", min_top_probability=0.5)
    assert scattered.bind().shape(made).rewards.tolist() == [0, 0, -0.5, 0, 0]
    # One cluster alone needs to reach nothing.
    same = made.with_rollouts(answer_id=torch.zeros(5).long())
    assert scattered.bind().shape(same).rewards.tolist() == [1, 1, 1, 0, 1]


def test_a_group_whose_answers_could_not_be_compared_earns_nothing() -> None:
    access = access_of(["\\boxed{a}", "\\boxed{b}", "no answer"])
    for variant in ("math", "free_form"):
        method = registry.method("empo", variant=variant, equal=lambda first: [None for _ in first])
        made = method.bind().on_scored(make_batch(access.rollouts, {}), access)
        assert method.bind().shape(made).rewards[:2].tolist() == [0, 0]


def test_repeating_the_question() -> None:
    asked = "What is the largest planet of the solar system?"
    assert repeats("the largest planet", asked)
    assert repeats("What is The largest planet of our solar system?", asked)
    assert not repeats("The largest planet is Jupiter", asked)
    assert not repeats("", asked)


def test_a_judge_is_looked_for_before_anything_is_sampled() -> None:
    check_method(registry.method("empo"), make_config({}))
    with pytest.raises(UsageError, match=r"there is no file judge\.py"):
        check_method(registry.method("empo(equal='judge.py:same')"), make_config({}))
