"""VSPO: groups without a signal give way to copies of groups worth learning from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.aggregation import sequence_mean
from cohort.axes.surrogate import clipped
from cohort.recipes.vspo import draw_probabilities, smoothing, task_values
from cohort.reductions.groups import group_flat
from cohort.training.loop import one_step
from cohort.types import Batch, StepInfo
from tests import micro
from tests.helpers import random_batch
from tests.stepping import run_of
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
GROUPS = (4, 4, 4, 4)


def prepared(batch: Batch, name: str) -> tuple[Batch, Tensor, Tensor]:
    method = registry.method(name)
    given_batch, leaves = with_leaves(method, batch)
    made = method.bind().prepare(given_batch).batch
    loss = method.bind().loss(made).total
    return made, loss.detach(), gradients(loss, leaves)["logp"]


def some_flat(seed: int) -> Batch:
    """Groups of which the first has equal rewards and the second has not."""
    batch = batch_for("vspo", seed=seed, groups=GROUPS, empty=False)
    rewards = torch.where(batch.group == 0, 1.0, batch.rewards)
    first = (batch.group == 1).nonzero()[:, 0]
    rewards[first] = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=rewards.dtype)
    return batch.replace(rewards=rewards)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_a_signal_in_every_group_it_is_grpo(seed: int) -> None:
    batch = batch_for("vspo", seed=seed, groups=GROUPS, binary=False)
    made, loss, grad = prepared(batch, "vspo")
    _, want, wanted = prepared(batch, "grpo(kl_beta=0.0)")
    assert torch.equal(made["source_row"], torch.arange(batch.size))
    assert torch.isclose(loss, want)
    assert torch.allclose(grad, wanted)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_replaced_rollouts_get_no_gradient_and_the_batch_keeps_its_size(seed: int) -> None:
    batch = some_flat(seed)
    made, _, grad = prepared(batch, "vspo")
    flat = group_flat(batch.rewards, batch.groups)[batch.groups.index]
    assert not grad[flat].any()
    assert made.size == batch.size
    assert torch.equal(made["source_row"][~flat], torch.arange(batch.size)[~flat])
    assert not flat[made["source_row"]].any()
    # The k-th of the replaced group is the k-th of the drawn one.
    for label in batch.group[flat].unique().tolist():
        rows = made["source_row"][batch.group == label]
        assert torch.equal(rows, (batch.group == batch.group[rows[0]]).nonzero()[:, 0])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_copies_weigh_one_plus_the_logarithm_of_their_number(seed: int) -> None:
    """The loss over copies is that of the original batch with the group's weight multiplied by c s(c)."""
    batch = some_flat(seed)
    made, loss, _ = prepared(batch, "vspo")
    counts = Counter(made["source_row"].tolist())
    copies = torch.tensor([float(counts.get(i, 0)) for i in range(batch.size)], dtype=torch.float64)
    weight = torch.where(copies > 0, 1 + copies.clamp(min=1).log(), 0.0)[:, None] * sequence_mean(batch)
    advantages = registry.method("grpo").bind().assign(batch).advantages
    tokens = clipped((batch.logp - batch.old_logp).exp(), advantages, 0.2, 0.2)
    assert torch.isclose(loss, (weight * tokens).sum())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=10, unique=True))
def test_damping_falls_while_the_total_weight_rises(numbers: list[int]) -> None:
    copies = torch.tensor(sorted(numbers), dtype=torch.float64)
    factor = smoothing(copies)
    assert (factor.diff() < 0).all()
    assert ((copies * factor).diff() > 0).all()
    assert smoothing(torch.ones(1)) == 1


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.05, 0.5))
def test_of_groups_of_equal_spread_the_worse_is_worth_more(seed: int, shift: float) -> None:
    batch = random_batch(seed, groups=(4, 4), binary=False)
    base = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.5
    rewards = torch.empty(8, dtype=torch.float64)
    rewards[batch.group == 0], rewards[batch.group == 1] = base, base + shift
    values, flat = task_values(batch.replace(rewards=rewards))
    low, high = (int((batch.groups.labels == label).nonzero()) for label in (0, 1))
    assert values[low] > values[high]
    probability = draw_probabilities(values, flat)
    assert torch.isclose(probability.sum(), torch.ones((), dtype=torch.float64))
    assert torch.allclose(probability, values / values.sum())


def test_groups_are_drawn_in_proportion_to_their_value() -> None:
    batch = some_flat(3)
    values, flat = task_values(batch)
    assert int(flat.sum()) >= 1
    want, seen = draw_probabilities(values, flat), torch.zeros(4, dtype=torch.float64)
    place = int(flat.nonzero()[0])
    row = int((batch.groups.index == place).nonzero()[0])
    for number in (torch.arange(200) + 0.5) / 200:
        draw = torch.zeros(batch.size, dtype=torch.float64)
        draw[row] = number
        made = registry.method("vspo").bind().prepare(batch.with_rollouts(draw=draw)).batch
        seen[batch.groups.index[made["source_row"][row]]] += 1
    assert torch.allclose(seen / 200, want, atol=6e-3)


def test_where_nothing_has_a_signal_nothing_is_replaced() -> None:
    batch = some_flat(1).replace(rewards=torch.ones(16, dtype=torch.float64))
    made, loss, grad = prepared(batch, "vspo")
    assert torch.equal(made["source_row"], torch.arange(16))
    assert loss == 0
    assert not grad.any()
    # All values 0: rewards at their largest on average, yet spread out.
    values, flat = torch.zeros(3), torch.tensor([True, False, False])
    assert draw_probabilities(values, flat).tolist() == [0.0, 0.5, 0.5]


def test_draws_depend_on_seed_and_step_alone(micro_root: Path) -> None:
    made = registry.method("vspo").filter[0].declared.on_scored
    assert made is not None
    batch = random_batch(0)
    infos = [StepInfo(seed=seed, step=step) for seed, step in ((0, 1), (0, 1), (0, 2), (1, 1))]
    draws = [made(batch, None, info=info)["draw"] for info in infos]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
    with micro.ready(micro_root, "vspo", group_size=3) as (setup, optimizer, progress):
        result = one_step(run_of(setup, optimizer, progress))
    # Many groups of three are flat, and every place is filled.
    assert result.metrics["zero_signal_groups"] > 0
    assert result.metrics["rollouts/trained"] == result.metrics["rollouts/sampled"] == 24
    trained = {result.rollouts[i].prompt.id for i in result.trained}
    rewards: dict[str, set[float]] = {}
    for rollout in result.rollouts:
        rewards.setdefault(rollout.prompt.id, set()).add(rollout.reward)
    assert trained == {name for name, seen in rewards.items() if len(seen) > 1}
