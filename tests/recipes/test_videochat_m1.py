"""VideoChat-M1: several agents in an episode, each compared with itself, without a clip."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_at_the_first_update_the_gradient_is_that_of_the_advantage(seed: int) -> None:
    """-A / (number of the agent's rollouts) at every token of its own."""
    method = registry.method("videochat-m1(kl_beta=0.0)")
    batch = batch_for("videochat-m1", seed=seed)
    batch, leaves = with_leaves(method, batch.replace(logp=batch.old_logp))
    bound = method.bind()
    made = bound.assign(batch)
    push = gradients(bound.loss(made).total, leaves)["logp"]
    count = torch.stack([(batch.agent == agent).sum() for agent in batch.agent])
    want = -made["outcome_advantage"] / count
    assert torch.allclose(push, torch.where(batch.mask, want[:, None], 0.0), atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_of_one_agent_it_is_grpo_of_whole_outputs_without_a_clip(seed: int) -> None:
    batch = batch_for("grpo", seed=seed, drift=0.05)
    batch = batch.with_rollouts(agent=torch.zeros(batch.size, dtype=torch.int64))
    method = registry.method("videochat-m1")
    made, leaves = with_leaves(method, batch)
    bound = method.bind()
    loss = bound.loss(bound.assign(made))
    ratio = (made.logp - made.old_logp).sum(1).exp()
    advantages = registry.method("grpo").bind().assign(made)["outcome_advantage"]
    some = made.mask.any(1)
    assert torch.allclose(loss.policy, -(ratio * advantages * some).mean())
    assert gradients(loss.total, leaves)["logp"].any()


def test_parts_are_three_and_a_clip_can_be_added() -> None:
    with pytest.raises(MethodError, match="three rewards"):
        registry.method("videochat-m1(parts=('a', 'b'))")
    assert registry.method("videochat-m1(clip=0.2)").stage("surrogate").name == "ppo_clip"
    assert registry.method("videochat-m1(parts=('a', 'b', 'c'))").components.keys() == {"a", "b", "c"}
