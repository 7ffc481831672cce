"""G2RPO's identities: ranks alone count; and its two shapings, task by task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.reductions.groups import group_sum
from cohort.types import Batch
from tests import micro
from tests.helpers import random_batch
from tests.stepping import run_of
from tests.traits import gradients, with_leaves

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (3, 1), (8, 7)])


def advantages(batch: Batch) -> torch.Tensor:
    return registry.method("g2rpo").bind().assign(batch)["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, coarse=st.booleans())
def test_only_ranks_matter(seed: int, groups: tuple[int, ...], coarse: bool) -> None:
    batch = random_batch(seed, groups=groups, binary=False)
    rewards = batch.rewards.round() if coarse else batch.rewards
    batch = batch.replace(rewards=rewards)
    found = advantages(batch)
    assert torch.equal(found, advantages(batch.replace(rewards=(3 * rewards).exp())))
    assert torch.equal(found, advantages(batch.replace(rewards=1e6 * rewards - 5)))
    assert (group_sum(found, batch.groups).abs() < 1e-9).all()
    size = torch.bincount(batch.groups.index)[batch.groups.index].double()
    assert (found.abs() <= torch.special.ndtri(1 - 0.5 / size) + 1e-12).all()
    same = (rewards[:, None] == rewards) & (batch.groups.index[:, None] == batch.groups.index)
    assert (found[:, None] == found)[same].all()
    higher = (rewards[:, None] > rewards) & (batch.groups.index[:, None] == batch.groups.index)
    assert (found[:, None] > found)[higher].all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_turning_the_rewards_round_turns_the_advantages_round(seed: int) -> None:
    batch = random_batch(seed, groups=(5, 4), binary=False)
    assert torch.allclose(advantages(batch.replace(rewards=-batch.rewards)), -advantages(batch), atol=1e-12)


def tasked(batch: Batch) -> Batch:
    return batch.with_rollouts(task_id=batch.groups.index % 2)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_band_raises_low_and_lowers_high_entropies(seed: int) -> None:
    """The gradient of the penalty reaches the entropies of the tasks that are outside, each in its direction."""
    batch = tasked(random_batch(seed, groups=(4, 4, 4)))
    task = batch["task_id"][:, None].expand_as(batch.mask)
    entropy = torch.where(task == 0, 0.1, 3.0).double()
    for bounds, signs in (
        (((0.5, 1.0), (0.5, 1.0)), (-1, 1)),
        (((0.05, 1.0), (0.5, 1.0)), (0, 1)),
        (((0.1, 1.0), (2.0, 3.0)), (0, 0)),
    ):
        method = registry.method("g2rpo", task="task", entropy_bounds=bounds, entropy_coef=0.7)
        ready, leaves = with_leaves(method, batch.with_tokens(entropy=entropy))
        ready = method.bind().assign(ready)
        loss = method.bind().loss(ready)
        grad = gradients(loss.regularizers["entropy_band"], leaves)["entropy"]
        for k, sign in enumerate(signs):
            here = batch.mask & (task == k)
            tokens = max(1, int(here.sum()))
            present = 1 + bool((batch.mask & (task == 1 - k)).any())
            assert torch.allclose(grad[here], torch.tensor(0.7 * sign / tokens / present).double())
        assert not grad[~batch.mask].any()


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 200), min_size=1, max_size=8), weight=st.floats(0.1, 2))
def test_the_length_reward_is_between_zero_and_its_weight(lengths: list[int], weight: float) -> None:
    count = len(lengths)
    batch = Batch.of(torch.ones(count, 1), group=torch.arange(count), rewards=torch.zeros(count).double())
    batch = batch.with_rollouts(length=torch.tensor(lengths), task_id=torch.arange(count) % 2)
    corners = ((0.0, 10.0, 20.0, 50.0), (50.0, 100.0, 100.0, 150.0))
    method = registry.method("g2rpo", task="kind", tasks=("short", "long"), lengths=corners, length_weight=weight)
    shaped = method.bind().shape(batch).rewards / weight
    for length, task, got in zip(lengths, batch["task_id"].tolist(), shaped.tolist(), strict=True):
        l_min, l_a, l_b, l_max = corners[task]
        if l_a <= length <= l_b:
            assert got == pytest.approx(1)
        elif length <= l_min or length >= l_max:
            assert got == 0
        else:
            assert 0 < got < 1
    step = registry.method("g2rpo", lengths=((2.0, 2.0, 4.0, 4.0),), length_weight=1.0)
    assert (
        step.bind().shape(batch.with_rollouts(task_id=torch.zeros(count, dtype=torch.int64))).rewards.isfinite().all()
    )


def test_groups_right_or_wrong_throughout_are_discarded_once() -> None:
    method = registry.method("g2rpo")
    assert method.refill_rounds == 1
    batch = random_batch(1, groups=(4, 4, 4))
    index = batch.groups.index
    mixed = (torch.arange(batch.size) % 2).double()
    accuracy = torch.where(index == 0, 1.0, torch.where(index == 1, 0.0, mixed))
    kept = method.bind().keep(batch.replace(accuracy=accuracy))
    assert set(index[kept].tolist()) <= {2}
    everything = registry.method("g2rpo(discard_uniform=False)").bind().keep(batch)
    assert everything.tolist() == list(range(batch.size))


def test_tasks_are_read_from_a_column(micro_root: Path) -> None:
    bounds = "entropy_bounds=((0.0, 9.0), (0.0, 9.0))"
    rows = [{**row, "kind": "math" if i % 2 else "vision"} for i, row in enumerate(micro.ROWS)]
    expression = f"g2rpo(task='kind', tasks=('math', 'vision'), {bounds}, discard_uniform=False)"
    with micro.ready(micro_root, expression, data=rows, steps=1) as (setup, optimizer, progress):
        result = micro.one_step(run_of(setup, optimizer, progress))
        assert result.batch is not None
        kinds = [result.rollouts[i].prompt.row["kind"] for i in result.trained]
        assert result.batch["task_id"].tolist() == [("math", "vision").index(kind) for kind in kinds]
    with (
        pytest.raises(UsageError, match=r"'sound'.*none of the tasks"),
        micro.ready(micro_root, expression, data=[{**row, "kind": "sound"} for row in rows]) as (
            setup,
            optimizer,
            progress,
        ),
    ):
        micro.one_step(run_of(setup, optimizer, progress))
    with pytest.raises(UsageError, match="column 'other'"), micro.ready(micro_root, f"g2rpo(task='other', {bounds})"):
        pass
    # One task needs no column.
    assert registry.method("g2rpo(entropy_bounds=((0.1, 1.0),))").columns == {}


def test_tables_that_do_not_fit_are_refused() -> None:
    for wrong in (
        "lengths=((0, 1, 2, 3), (0, 1, 2, 3))",
        "task='task', tasks=('a', 'b'), entropy_bounds=((0.1, 1.0),)",
        "entropy_bounds=((1.0, 0.1),)",
        "lengths=((0, 3, 2, 4),)",
        "lengths=((0, 3, 4),)",
    ):
        with pytest.raises(MethodError, match=r"one for each task, of . rising numbers"):
            registry.method(f"g2rpo({wrong})")
