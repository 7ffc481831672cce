"""D3S: rollouts of the most different advantages, and their tokens of the largest |A| H."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.d3s import extremes, scheduled
from cohort.types import Batch, Groups, StepInfo
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
VALUES = st.lists(st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.1, 1.0, 1.5]), min_size=1, max_size=8)


def one_group(count: int) -> Groups:
    return Groups(torch.zeros(count, dtype=torch.int64), torch.zeros(1))


def fixed(rollouts: int | None, tokens: float, **hyper: Any) -> dict[str, Any]:
    return {
        "num_rollouts_init": rollouts,
        "num_rollouts_final": rollouts,
        "token_fraction_init": tokens,
        "token_fraction_final": tokens,
        **hyper,
    }


def run(batch: Batch, name: str = "d3s", **hyper: Any) -> tuple[torch.Tensor, torch.Tensor, Batch]:
    made = registry.method(name, **hyper)
    logp = batch._tokens["logp"].clone().requires_grad_()
    ready = made.bind().prepare(batch.with_tokens(logp=logp)).batch
    loss = made.bind().loss(ready).total
    return loss.detach(), torch.autograd.grad(loss, logp)[0], ready


@settings(max_examples=15, deadline=None)
@given(VALUES, st.integers(1, 9))
def test_the_search_from_both_ends_is_as_good_as_any_subset(values: list[float], size: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    chosen = extremes(x, one_group(len(values)), size)
    count = min(size, len(values))
    assert int(chosen.sum()) == count
    best = max(float(x[list(rows)].var(correction=0)) for rows in combinations(range(len(values)), count))
    assert float(x[chosen].var(correction=0)) == pytest.approx(best, abs=1e-12)
    # Of equal values the earlier are taken.
    for value in x[chosen].unique():
        places = (x == value).nonzero()[:, 0]
        assert bool(chosen[places][: int(chosen[places].sum())].all())


def test_of_equal_variances_the_one_with_more_from_the_top_is_taken() -> None:
    chosen = extremes(torch.tensor([-1.0, 1.0, -1.0, 1.0]), one_group(4), 3)
    assert chosen.tolist() == [True, True, False, True]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e6))
def test_the_choice_does_not_depend_on_the_scale(seed: int, scale: float) -> None:
    x = torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(extremes(x, one_group(9), 4), extremes(scale * x + 3 * scale, one_group(9), 4))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_two_rollouts_always_differ_enough(seed: int) -> None:
    """The variance of two of a standardised set is at least 1, which keeps the bound on the gradient."""
    batch = random_batch(seed, binary=False)
    advantages = registry.method("grpo(adv_eps=1e-12)").bind().assign(batch)["outcome_advantage"]
    assert float(advantages[extremes(advantages, batch.groups, 2)].reshape(-1, 2).var(correction=0)) >= 1 - 1e-9


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_everything_kept_it_is_grpo_with_the_token_mean(seed: int) -> None:
    batch = random_batch(seed, binary=False)
    got = run(batch, **fixed(None, 1.0, num_rollouts_init=batch.size))
    want = run(batch, "grpo", kl_beta=0.0, aggregation="token")
    assert torch.allclose(got[0], want[0])
    assert torch.allclose(got[1], want[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 12), st.floats(0.05, 1), st.booleans(), st.sampled_from(["selected", "sequence"]))
def test_only_the_kept_tokens_of_the_selected_rollouts_are_trained(
    seed: int, rollouts: int, tokens: float, cross_group: bool, denominator: str
) -> None:
    batch = random_batch(seed, binary=False)
    _, grad, ready = run(batch, **fixed(rollouts, tokens, cross_group=cross_group, denominator=denominator))
    made = registry.method("d3s", **fixed(rollouts, tokens, cross_group=cross_group))
    assigned = made.bind().assign(batch)
    kept, selected = assigned.loss_mask, assigned["selected"]
    total = int(batch.mask[selected].sum())
    assert int(kept.sum()) == (max(1, -int(-(tokens * total - 1e-9) // 1)) if total else 0)
    assert not kept[~selected].any()
    assert not grad[~kept].any()
    assert ready.size == int(selected.sum())
    weight = assigned.advantages.abs() * batch["old_entropy"]
    left = batch.mask & selected[:, None] & ~kept
    if bool(left.any()):
        assert weight[left].max() <= weight[kept].min()
    counts = torch.bincount(batch.groups.index[selected], minlength=batch.groups.count)
    if cross_group:
        assert int(counts.sum()) == min(rollouts, batch.size)
    else:
        assert counts.tolist() == [min(rollouts, int(n)) for n in torch.bincount(batch.groups.index)]
    # Advantages are those of the full groups.
    plain = registry.method("grpo").bind().assign(batch).advantages
    assert torch.equal(ready.advantages, plain[selected] * batch.mask[selected])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_denominators(seed: int) -> None:
    batch = random_batch(seed, binary=False)
    (_, mean, ready), (_, sequence, _) = (run(batch, **fixed(6, 0.5, denominator=d)) for d in ("selected", "sequence"))
    kept = ready.loss_mask.sum()
    factor = kept / (batch.mask.sum(1).clamp(min=1) * ready.size)
    assert torch.allclose(sequence, mean * factor[:, None])


def test_both_levels_relax_over_the_run() -> None:
    batch = random_batch(3, groups=(6, 6), binary=False, empty=False)
    seen = []
    for step in range(5):
        assigned = registry.method("d3s").bind(info=StepInfo(step=step, steps=5)).assign(batch)
        seen.append((int(assigned["selected"].sum()), int(assigned.loss_mask.sum())))
    assert [rollouts for rollouts, _ in seen] == [6, 8, 9, 10, 12]
    tokens = [count for _, count in seen]
    assert tokens == sorted(tokens)
    assert tokens[-1] == -int(-0.8 * int(batch.mask.sum()) // 1)
    # A batch that comes from elsewhere stands at the start.
    assert int(registry.method("d3s").bind().assign(batch)["selected"].sum()) == 6


@settings(max_examples=15, deadline=None)
@given(st.floats(-1, 2), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_stays_between_its_ends(p: float, init: float, final: float) -> None:
    assert min(init, final) - 1e-12 <= scheduled(p, init, final) <= max(init, final) + 1e-12
    assert (scheduled(0, init, final), scheduled(1, init, final)) == (init, final)
    assert scheduled(-1, init, final) == init


def test_advantages_per_token_are_selected_by_their_mean() -> None:
    batch = random_batch(4, binary=False)
    mixed = registry.method("d3s:filter+reinforce-pp")
    batch = batch.replace(rewards=batch.rewards * 10)
    assigned = mixed.bind().assign(batch)
    own = assigned.advantages.sum(1) / batch.mask.sum(1).clamp(min=1)
    count = int(assigned["selected"].sum())
    assert torch.equal(assigned["selected"], extremes(own, one_group(batch.size), count))
