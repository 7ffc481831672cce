"""ScaleRL: a mean a prompt, advantages scaled by the batch, groups without signal out."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.scale_rl import _offered, mastered, offered, prompt_mean, unmastered
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_every_prompt_with_tokens_has_the_same_weight(seed: int) -> None:
    batch = random_batch(seed, groups=(2, 5, 3))
    weight = prompt_mean(batch)
    for group in range(3):
        assert torch.allclose(weight[batch.groups.index == group].sum(), torch.tensor(1 / 3, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_groups_without_a_signal_change_nothing(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 4, 4), drift=0.3)
    first = batch.groups.index == 0
    batch = batch.replace(rewards=torch.where(first, 0.5, batch["reward_components"][:, 1]))
    hyper = {"behaviour": "old"}
    whole, rest = taken("scale-rl", batch, **hyper), taken("scale-rl", batch.select(~first), **hyper)
    assert torch.allclose(whole[0], rest[0])
    assert not whole[1][first].any()
    assert torch.allclose(whole[1][~first][:, : rest[1].shape[1]], rest[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_advantages_of_what_is_kept_have_deviation_one(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 6))
    batch = batch.replace(rewards=batch["reward_components"][:, 1])
    gain = registry.method("scale-rl", adv_eps=0.0).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(gain.std(correction=0), torch.tensor(1.0, dtype=torch.float64))


def test_a_far_weight_and_fresh_rollouts_of_one_prompt_are_a_token_mean() -> None:
    batch = on_policy(random_batch(4, groups=(6,)))
    batch = batch.replace(rewards=batch["reward_components"][:, 1])
    scale = batch.rewards.std(correction=0) + 1e-6
    mine = taken("scale-rl", batch, behaviour="old")[1]
    plain = taken("dr-grpo:advantage+dapo:aggregation", batch)[1]
    assert torch.allclose(mine, plain / scale)


def test_mastered_prompts_come_no_more_until_there_are_no_others() -> None:
    state = _offered(4)
    state = {**state, "mastered": mastered(state, torch.tensor([1, 2]), torch.tensor([0.9, 0.89]), pass_rate_limit=0.9)}
    rows, after = unmastered(state, count=6, rng=torch.Generator().manual_seed(0))
    assert sorted(rows.tolist()) == [0, 0, 2, 2, 3, 3]
    everything = {**after, "mastered": torch.ones(4, dtype=torch.bool)}
    assert offered(everything).tolist() == [0, 1, 2, 3]


def test_a_prompt_is_mastered_by_all_its_agents_together() -> None:
    batch = random_batch(1, groups=(4, 4))
    right = (batch.groups.index == 1).double()
    batch = batch.replace(accuracy=right).with_rollouts(row=torch.zeros(8).long())
    method = registry.method("scale-rl")
    states = method.bind(method.init(size=1)).on_rollouts(batch, [None] * 8)
    assert not states["curriculum/unmastered"]["mastered"].any()
