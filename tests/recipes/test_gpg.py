"""GPG: a policy gradient scaled up for groups without signal; sampling until a share of them has one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.advantage import centred
from cohort.recipes.gpg import rescaling
from cohort.reductions.groups import group_sum
from cohort.rollouts.refill import refill
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_scale_is_one_over_the_share_with_a_signal(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 2, 6))
    batch = batch.replace(rewards=torch.where(batch.groups.index == 0, 1.0, torch.arange(12).double()))
    gain = registry.method("gpg").bind().assign(batch)["outcome_advantage"]
    alpha = torch.tensor(12.0, dtype=torch.float64) / int((batch.groups.index != 0).sum())
    assert torch.allclose(rescaling(batch), alpha)
    assert torch.allclose(gain, alpha * centred(batch))
    assert torch.allclose(group_sum(gain, batch.groups), torch.zeros(3, dtype=torch.float64), atol=1e-9)


def test_a_batch_without_any_signal_has_no_scale() -> None:
    batch = random_batch(0)
    assert float(rescaling(batch.replace(rewards=torch.ones_like(batch.rewards)))) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=6), st.floats(0.1, 1))
def test_others_fill_up_only_where_a_share_suffices(rounds: list[list[bool]], share: float) -> None:
    done = refill(iter(rounds), lambda flags: flags, target=4, max_rounds=5, share=share)
    kept = sum(map(sum, done.flags))
    seen = sum(map(len, done.flags))
    assert len(done.chosen) == min(4, seen if share < 1 else kept)
    chosen = [rounds[at][place] for at, place in done.chosen]
    # Those with a signal come first, and none of them is left out for one without.
    assert chosen == sorted(chosen, reverse=True)
    assert sum(chosen) == min(4, kept)
    if len(done.rounds) < min(5, len(rounds)):
        assert kept >= share * 4 - 1e-9
