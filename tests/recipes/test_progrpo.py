"""ProGRPO: of equally rewarded rollouts the less confident gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.progrpo import confidence, low_count, prompt_probabilities
from cohort.reductions.groups import group_max, group_mean, group_size, group_sum
from cohort.types import Batch
from tests.helpers import access_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def advantages(batch: Batch, **hyper: float) -> torch.Tensor:
    return registry.method("progrpo", **hyper).bind().assign(batch)["outcome_advantage"]


def grpo(batch: Batch) -> torch.Tensor:
    return registry.method("grpo").bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.0, 2.0))
def test_the_shift_of_a_group(seed: int, alpha: float) -> None:
    batch = batch_for("progrpo", seed=seed, groups=(5, 4, 1), empty=False)
    assert torch.equal(advantages(batch, alpha=0.0), grpo(batch))
    change = advantages(batch, alpha=alpha) - grpo(batch)
    own = confidence(batch.old_logp, batch.mask, fraction=0.2)
    asked = confidence(batch["prompt_logp"], batch["prompt_mask"], fraction=0.2)
    solved = group_max(batch.rewards, batch.groups) > 0
    size = group_size(batch.groups, torch.float64)
    total = alpha * (size * group_mean(asked, batch.groups) - group_sum(own, batch.groups))
    assert torch.allclose(group_sum(change, batch.groups), torch.where(solved, total, torch.zeros_like(total)))
    assert not change[~solved[batch.groups.index]].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.05, 2.0))
def test_among_equals_the_less_confident_gains_even_where_all_are_right(seed: int, alpha: float) -> None:
    batch = batch_for("progrpo", seed=seed, groups=(6, 6), empty=False)
    own = confidence(batch.old_logp, batch.mask, fraction=0.2)
    for rewards in (batch.rewards, torch.ones_like(batch.rewards)):
        value = advantages(batch.replace(rewards=rewards), alpha=alpha)
        for group in range(2):
            if not bool((rewards[batch.groups.index == group] > 0).any()):
                continue
            for reward in (0.0, 1.0):
                here = (batch.groups.index == group) & (rewards == reward)
                assert bool((value[here][own[here].argsort()].diff() <= 1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.05, 1.0))
def test_a_confidence_is_a_probability_and_falls_with_the_fraction(seed: int, fraction: float) -> None:
    batch = batch_for("progrpo", seed=seed)
    low = confidence(batch.old_logp, batch.mask, fraction=fraction)
    whole = confidence(batch.old_logp, batch.mask, fraction=1.0)
    there = batch.mask.any(1)
    assert bool(((low > 0) & (low <= whole + 1e-12) & (whole <= 1))[there].all())
    assert not low[~there].any()
    every = [float(row[m].mean().exp()) for row, m in zip(batch.old_logp, batch.mask, strict=True) if m.any()]
    assert torch.allclose(whole[there], torch.tensor(every, dtype=torch.float64))


@pytest.mark.parametrize("fraction", [0.2, 0.1, 0.05, 1.0])
def test_the_count_is_exact(fraction: float) -> None:
    """0.2 * 35 is a little more than 7 in floating point."""
    lengths = torch.arange(0, 400)
    exact = [0 if n == 0 else max(1, math.ceil(n * round(1000 * fraction) / 1000 - 1e-9)) for n in lengths.tolist()]
    assert low_count(lengths, fraction=fraction).tolist() == exact


def test_every_prompt_is_scored_once_after_its_first_token() -> None:
    asked: list[Any] = []

    def log_probs(contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        asked.extend(zip(contexts, completions, strict=True))
        out = torch.zeros(len(completions), max(map(len, completions)))
        for i, row in enumerate(completions):
            out[i, : len(row)] = -(i + 1.0)
        return {"logp": out}

    access = access_of(["a", "b", "cd"], groups=[7, 123, 7], log_probs=log_probs)
    batch = Batch(mask=torch.ones(3, 3))
    made = prompt_probabilities(batch, access)
    prompts = [access.encode(f"question {label}") for label in (7, 123)]
    assert asked == [(p[:1], p[1:]) for p in prompts]
    assert made["prompt_mask"].sum(1).tolist() == [len(prompts[i]) - 1 for i in (0, 1, 0)]
    means = [float(row[m].mean()) for row, m in zip(made["prompt_logp"], made["prompt_mask"], strict=True)]
    assert means == [-1.0, -2.0, -1.0]
