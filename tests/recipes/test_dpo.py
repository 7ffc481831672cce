"""DPO's identities, and which rollouts make a pair."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.axes.objective import logistic, preferred_pairs, sequence_log_ratio
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.steps import pairs_batch, update_of

SEEDS = st.integers(0, 10_000)


def pairs(seed: int, count: int = 5, **kwargs: object) -> Batch:
    return pairs_batch(random_batch(seed, groups=(2 * count,), **{"empty": False, **kwargs}))  # type: ignore[arg-type]


def at_reference(batch: Batch) -> Batch:
    return batch.replace(logp=batch["ref_logp"])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0.01, 2))
def test_at_the_reference_the_loss_is_log_2_and_every_token_is_pushed_alike(seed: int, beta: float) -> None:
    batch = at_reference(pairs(seed))
    loss, grads, _ = update_of(f"dpo(beta={beta!r})", batch)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-12)
    sign = torch.where(batch.rewards > 0, -1.0, 1.0).double()[:, None]
    assert torch.allclose(grads["logp"], torch.where(batch.mask, sign * beta / (2 * 5), 0.0), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0.01, 2))
def test_the_gradient_is_as_large_as_the_policy_is_wrong(seed: int, beta: float) -> None:
    batch = pairs(seed, drift=2.0)
    _, grads, _ = update_of(f"dpo(beta={beta!r})", batch)
    ratio = sequence_log_ratio(batch)
    wrong = torch.sigmoid(-beta * (ratio[0::2] - ratio[1::2])).repeat_interleave(2)
    sign = torch.where(batch.rewards > 0, -1.0, 1.0).double()
    assert torch.allclose(grads["logp"], torch.where(batch.mask, (sign * beta * wrong / 5)[:, None], 0.0), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=st.sampled_from([(2, 2, 2), (4, 3, 5)]))
def test_a_function_of_the_prompt_in_the_reference_changes_nothing(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups, empty=False)
    shift = torch.randn(len(groups), generator=torch.Generator().manual_seed(seed)).double()[batch.groups.index]
    # In the sum of each rollout, through its first token.
    first = torch.where(torch.arange(batch.mask.shape[1]) == 0, shift[:, None], 0.0)
    other = batch.replace(ref_logp=batch._tokens["ref_logp"] + first)
    (loss, grads, _), (again, others, _) = (update_of("dpo", each) for each in (batch, other))
    assert torch.allclose(loss, again, atol=1e-10)
    assert torch.allclose(grads["logp"], others["logp"], atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=st.sampled_from([(4, 4, 4), (2, 5, 1), (3,)]), smoothing=st.floats(0, 0.4))
def test_every_two_rollouts_of_a_group_with_different_rewards_are_a_pair(
    seed: int, groups: tuple[int, ...], smoothing: float
) -> None:
    batch = random_batch(seed, groups=groups, binary=False)
    batch = batch.replace(rewards=batch.rewards.round())
    group, rewards = batch.group.tolist(), batch.rewards.tolist()
    want = {(i, j) for i, j in permutations(range(batch.size), 2) if group[i] == group[j] and rewards[i] > rewards[j]}
    better, worse = preferred_pairs(batch)
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) == want
    assert better.numel() == len(want)
    reward = 0.1 * sequence_log_ratio(batch)
    terms = [logistic(reward[i] - reward[j], smoothing) for i, j in want]
    loss, _, _ = update_of(f"dpo(label_smoothing={smoothing!r})", batch)
    assert float(loss) == pytest.approx(float(sum(terms)) / max(1, len(want)), abs=1e-10)


def test_without_a_pair_there_is_a_loss_of_0_that_can_be_differentiated() -> None:
    batch = random_batch(0)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, 0.7))
    loss, grads, _ = update_of("dpo", batch)
    assert loss == 0
    assert not grads["logp"].any()


def test_the_same_completion_on_both_sides_cancels() -> None:
    batch = pairs(3)
    twin = torch.arange(batch.size) // 2 * 2
    same = {name: batch._tokens[name][twin] for name in ("logp", "ref_logp")}
    _, grads, _ = update_of("dpo", batch.replace(mask=batch.mask[twin], **same))
    assert torch.allclose(grads["logp"][0::2], -grads["logp"][1::2])
    assert grads["logp"].any()
