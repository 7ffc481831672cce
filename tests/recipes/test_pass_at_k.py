"""Pass@k training: the formula is the mean over all sets of k."""

from __future__ import annotations

from itertools import combinations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.pass_at_k import of_count
from cohort.reductions.groups import group_sum
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.data())
def test_the_formula_is_the_mean_over_all_sets(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    right = [i < c for i in range(n)]
    best = {chosen: float(any(right[i] for i in chosen)) for chosen in combinations(range(n), k)}
    values = torch.tensor(list(best.values()), dtype=torch.float64)
    spread = values.std(correction=0) + 1e-6
    up, down = of_count(n, c, k, 1e-6)
    for i in range(n):
        mine = [value for chosen, value in best.items() if i in chosen]
        want = (sum(mine) / len(mine) - values.mean()) / spread
        assert abs(float(want) - (up if right[i] else down)) < 1e-6


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_groups_sum_to_zero_and_one_is_grpo(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 5, 6))
    found = registry.method("pass-at-k", k=3).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(group_sum(found, batch.groups), torch.zeros(3, dtype=torch.float64), atol=1e-9)
    single = registry.method("pass-at-k", k=1).bind().assign(batch)["outcome_advantage"]
    grpo = registry.method("grpo", adv_eps=1e-6).bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(single, grpo, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_lead_is_one_rollouts_alone_and_never_negative(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 5, 6))
    batch = batch.replace(rewards=batch["reward_components"][:, 1])
    found = registry.method("pass-at-k", form="best-minus-second").bind().assign(batch)["outcome_advantage"]
    assert bool((found >= 0).all())
    assert bool((group_sum((found > 0).double(), batch.groups) <= 1).all())


def test_groups_smaller_than_k_are_left_out() -> None:
    batch = random_batch(0, groups=(4, 6))
    assert registry.method("pass-at-k", k=5).group_size == 5
    assert len(registry.method("pass-at-k", k=5).bind().comparable(batch)) == 6
