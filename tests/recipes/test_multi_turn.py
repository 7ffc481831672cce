"""Multi-turn: rewards at the ends of turns, credit that jumps over the environment."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.multi_turn import count_parts
from cohort.rollouts.batching import make_batch
from cohort.types import Batch
from tests.environments.worlds import Worlds
from tests.rollouts.test_runner import requests, runner
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def episodes(seed: int) -> Batch:
    """Random rows with tokens of an environment between those of the policy, a reward at some."""
    batch = batch_for("multi-turn", seed=seed)
    g = torch.Generator().manual_seed(seed)
    hidden = torch.rand(batch.mask.shape, generator=g) < 0.3
    mask = batch.mask & ~hidden
    rewards = torch.randn(mask.shape, generator=g, dtype=torch.float64) * (torch.rand(mask.shape, generator=g) < 0.3)
    return batch.replace(mask=mask).with_tokens(turn_rewards=rewards)


def prepared(batch: Batch, **hyper: object) -> Batch:
    return registry.method("multi-turn", kl_in_reward=0.0, **hyper).bind().prepare(batch).batch


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_values_or_discount_an_advantage_is_what_is_still_earned(seed: int) -> None:
    batch = episodes(seed)
    batch = batch.with_tokens(old_values=torch.zeros_like(batch["old_values"]))
    made = prepared(batch, rewards="turn")
    earned = batch["turn_rewards"]
    ahead = earned.flip(1).cumsum(1).flip(1)
    assert torch.allclose(made["returns"], torch.where(batch.mask, ahead, 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_values_at_what_the_environment_says_have_no_influence(seed: int, gamma: float, lam: float) -> None:
    batch = episodes(seed)
    other = batch.with_tokens(old_values=torch.where(batch.mask, batch["old_values"], 7.0))
    a, b = (prepared(each, rewards="turn", gamma=gamma, lam=lam) for each in (batch, other))
    assert torch.equal(a.advantages, b.advantages)
    assert not a.advantages[~batch.mask].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_single_reward_sums_to_the_final_one_unless_the_episode_was_cut(seed: int) -> None:
    batch = episodes(seed)
    cut = torch.arange(batch.size) % 3 == 1
    method = registry.method("multi-turn(kl_in_reward=0.0)").bind()
    shaped = method.shape(batch.with_rollouts(truncated=cut.double()))
    some = batch.mask.any(1)
    assert torch.allclose(shaped.rewards, torch.where(cut | ~some, 0.0, batch.rewards))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_compared_with_the_others_of_a_group_advantages_sum_to_0(seed: int) -> None:
    batch = episodes(seed)
    made = prepared(batch, estimator="rloo", rewards="turn")
    total = torch.zeros(made.groups.count, dtype=torch.float64)
    total = total.index_add(0, made.groups.index, made["outcome_advantage"])
    assert torch.allclose(total, torch.zeros_like(total), atol=1e-9)
    alone = batch.replace(group=torch.arange(batch.size))
    for estimator in ("rloo", "grpo"):
        one = prepared(alone, estimator=estimator, rewards="turn")["outcome_advantage"]
        assert torch.allclose(one, (batch["turn_rewards"] * batch.mask).sum(1), rtol=1e-5)


def test_dense_rewards_of_episodes_sum_to_what_they_achieved() -> None:
    """1 where an episode of rewards of 1 is won, else the share of what there was to earn."""
    worlds = Worlds()
    rollouts = worlds.group_rewards(runner(worlds).run(requests()))
    access = SimpleNamespace(rollouts=rollouts, column=lambda name: [4.0] * len(rollouts))
    made = count_parts(make_batch(rollouts, {}), access, rewards="dense", max_reward="most")  # type: ignore[arg-type]
    shaped = registry.method("multi-turn(rewards='dense', kl_in_reward=0.0)").bind().shape(made)
    for i, rollout in enumerate(rollouts):
        earned = [turn.reward for turn in rollout.turns if turn.reward]
        count = max(1, sum(e > 0 for e in earned)) if rollout.accuracy == 1 else 4
        assert shaped.rewards[i].item() == pytest.approx(sum(earned) / count, abs=1e-6)
