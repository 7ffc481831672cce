"""TTRL: the majority answer is the label, all rollouts vote, the first ones are trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.reductions.groups import group_sum
from cohort.rollouts.batching import make_batch
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from tests.helpers import access_of
from tests.stepping import run_of
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (6, 5, 3), (8, 2)])


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHAPES, st.integers(2, 6))
def test_the_first_rollouts_of_a_group_are_trained_on_with_labels_of_all(
    seed: int, groups: tuple[int, ...], count: int
) -> None:
    batch = batch_for("ttrl", seed=seed, groups=groups)
    method = registry.method("ttrl", n_samples=count)
    shaped = method.bind().shape(batch)
    kept = method.bind().keep(shaped)
    want = [i for i, g in enumerate(batch.group.tolist()) if (batch.group[:i] == g).sum() < count]
    assert kept.tolist() == want
    made = method.bind().prepare(batch).batch
    assert torch.equal(made.rewards, shaped.rewards[kept])
    total = group_sum(made["outcome_advantage"], made.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHAPES)
def test_half_of_the_votes_are_trained_on(seed: int, groups: tuple[int, ...]) -> None:
    batch = batch_for("ttrl", seed=seed, groups=groups)
    made = registry.method("ttrl").bind().prepare(batch).batch
    sizes = torch.bincount(made.group)
    assert sizes.tolist() == [max(2, -(-n // 2)) for n in torch.bincount(batch.group).tolist()]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_labels_of_the_data_are_never_used(seed: int) -> None:
    batch = batch_for("ttrl", seed=seed)
    other = batch.replace(rewards=1 - batch.rewards, accuracy=1 - batch["accuracy"])
    method = registry.method("ttrl", n_samples=4)
    assert torch.equal(method.bind().prepare(batch).batch.advantages, method.bind().prepare(other).batch.advantages)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(-1, 2))
def test_unanimous_groups_give_no_gradient(seed: int, said: int) -> None:
    batch, leaves = with_leaves(registry.method("ttrl"), batch_for("ttrl", seed=seed))
    batch = batch.with_rollouts(answer_id=torch.full_like(batch["answer_id"], said))
    method = registry.method("ttrl")
    loss = method.bind().loss(method.bind().prepare(batch).batch).total
    assert not any(grad.any() for grad in gradients(loss, leaves).values())


def test_answers_are_read_from_the_texts() -> None:
    access = access_of(["it is 4", "#### 4.0", "five", "7", "7", "\\boxed{7}"], groups=[0, 0, 0, 1, 1, 1])
    method = registry.method("ttrl", n_samples=3)
    made = method.bind().shape(method.bind().on_scored(make_batch(access.rollouts, {}), access))
    assert made.rewards.tolist() == [1, 1, 0, 1, 1, 1]


def test_numbers_of_votes_and_samples() -> None:
    method = registry.method("ttrl(n_votes=6,n_samples=2)")
    assert method.bind().budget(torch.arange(3), group_size=4)[0].tolist() == [6, 6, 6]
    assert registry.method("ttrl").bind().budget(torch.arange(3), group_size=4)[0].tolist() == [4, 4, 4]
    with pytest.raises(MethodError, match="n_samples=8 rollouts cannot be trained on of n_votes=4"):
        registry.method("ttrl(n_votes=4,n_samples=8)")


def test_a_step_samples_the_votes_and_trains_on_the_samples(base: dict[str, Any]) -> None:
    setup = prepare(make_config({**base, "method": "ttrl(n_votes=6,n_samples=2)"}), log=lambda _: None)
    try:
        result = one_step(run_of(setup))
    finally:
        setup.close()
    assert result.metrics["rollouts/sampled"] == 18
    assert result.metrics["rollouts/trained"] == 6
    assert 0 <= result.metrics["vote/majority_ratio"] <= 1
    assert {f"vote/{name}" for name in ("label_accuracy", "reward_accuracy", "true_ratio")} <= set(result.metrics)
