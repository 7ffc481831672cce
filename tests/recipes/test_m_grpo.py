"""M-GRPO: agents compared each with itself, calls aligned to slots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.m_grpo import align
from cohort.reductions.groups import group_sum
from cohort.rollouts.batching import make_batch
from cohort.types import Batch, StepInfo
from cohort.types.batch import label_of
from tests.rollouts.test_agents import Boss, collected
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(1, 6), SEEDS)
def test_every_call_that_there_is_room_for_stands_in_a_slot(calls: list[int], slots: int, seed: int) -> None:
    keys = torch.rand(len(calls), 8, generator=torch.Generator().manual_seed(seed))
    for d, row in zip(calls, align(torch.tensor(calls), keys, slots).tolist(), strict=True):
        assert len(row) == slots
        if d == 0:
            assert set(row) == {-1}
        elif d < slots:
            assert row[:d] == list(range(d))
            assert set(row) == set(range(d))
        else:
            assert row == sorted(set(row))
            assert all(0 <= each < d for each in row)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([None, 1, 3]))
def test_advantages_in_slots_sum_to_0(seed: int, slots: int | None) -> None:
    batch = batch_for("m-grpo", seed=seed)
    made = registry.method("m-grpo", slots=slots).bind(info=StepInfo(seed=seed)).assign(batch)
    copies = made["copies"].double() if slots else torch.ones(batch.size, dtype=torch.float64)
    total = group_sum(copies * made["outcome_advantage"], batch.groups)
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-8)
    if slots:
        main = batch.agent == label_of("main")
        assert made["copies"][main].eq(1).all()
        # A rollout's calls fill its slots.
        calls = {}
        for episode, count in zip(batch.episode[~main].tolist(), made["copies"][~main].tolist(), strict=True):
            calls[episode] = calls.get(episode, 0) + count
        assert set(calls.values()) <= {slots}


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_of_one_agent_it_is_grpo(seed: int) -> None:
    batch = batch_for("grpo", seed=seed)
    batch = batch.with_rollouts(agent=torch.zeros(batch.size, dtype=torch.int64), episode=torch.arange(batch.size))
    found = []
    for name in ("m-grpo(clip_high=0.2)", "grpo(kl_beta=0.0)"):
        method = registry.method(name)
        made, leaves = with_leaves(method, batch)
        bound = method.bind()
        found.append(gradients(bound.loss(bound.prepare(made).batch).total, leaves)["logp"])
    assert torch.allclose(*found, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_each_agents_loss_is_its_own(seed: int) -> None:
    """The gradient at one agent's rollouts does not depend on how many there are of the other."""
    method = registry.method("m-grpo")
    batch, leaves = with_leaves(method, batch_for("m-grpo", seed=seed))
    bound = method.bind()
    made = bound.assign(batch)
    whole = gradients(bound.loss(made).total, leaves)["logp"]
    for label in made.agent.unique():
        own = (made.agent == label).nonzero()[:, 0]
        alone = gradients(bound.loss(made.select(own)).total, leaves)["logp"]
        assert torch.allclose(alone[own], whole[own], atol=1e-12)


def test_what_a_call_is_worth_depends_on_the_main_agents_answer() -> None:
    _, rollouts = collected(lambda k: Boss(2), method="m-grpo", count=4)
    batch: Batch = make_batch(rollouts, {})
    main = batch.agent == label_of("main")
    right = torch.where(main, (batch.episode % 2).float(), 0.0)
    parts = torch.stack([torch.ones(batch.size), right], 1)
    method = registry.method("m-grpo(format='format', correct='correct')")
    info = StepInfo(reward_names=("format", "correct"))
    shaped = method.bind(info=info).shape(batch.replace(reward_components=parts))
    assert torch.allclose(shaped.rewards, torch.where(batch.episode % 2 == 1, 1.0, 0.1))
    broken = batch.replace(reward_components=torch.stack([(~main).float(), right], 1))
    assert torch.allclose(method.bind(info=info).shape(broken).rewards, torch.where(main, 0.0, 0.1))


def test_rewards_are_named_together() -> None:
    with pytest.raises(MethodError, match="name the rewards format and correct"):
        registry.method("m-grpo(format='x')")
