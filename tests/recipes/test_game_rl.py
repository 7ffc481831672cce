"""Game-RL: GRPO with a sample deviation, and a reward of its own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from tests.helpers import random_batch


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_grpo_with_the_sample_deviation_and_a_token_mean(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 3, 5))
    same = registry.method("grpo", adv_eps=1e-4, std_ddof=1, aggregation="token").bind()
    own = registry.method("game-rl").bind()
    mine, other = own.assign(batch), same.assign(batch)
    assert torch.equal(mine.advantages, other.advantages)
    assert torch.equal(own.loss(mine).total, same.loss(other).total)


def test_it_judges_conclusions() -> None:
    assert registry.rewards("game-rl") == ("conclusion",)
    assert not registry.method("game-rl", kl_beta=0.0).regularizer
