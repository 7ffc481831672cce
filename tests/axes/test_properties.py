"""What must hold for every method on every batch, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.batch import Batch
from cohort.methods import Method
from tests.helpers import random_batch

# Methods that refuse a batch by design, with what they refuse.
EVERY = [name for name in registry.names() if not registry.recipe(name)().lacks]
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (3,), (2, 2, 2, 2, 2), (6, 2)])


def run(method: Method, batch: Batch) -> tuple[Tensor, Tensor, Batch]:
    """Loss and its gradient with respect to logp [N, T], through every stage of the update."""
    leaf = batch._tokens["logp"].clone().requires_grad_()
    batch = batch.replace(logp=leaf)
    states = method.init(size=int(batch["row"].max()) + 1)
    states = method.observe(states, batch=batch, rollouts=[])
    ready = method.prepare(batch, states)
    if ready.size == 0:
        return torch.zeros((), dtype=leaf.dtype), torch.zeros_like(leaf), ready
    loss = method.loss(ready, states).total
    (grad,) = (
        torch.autograd.grad(loss, leaf, allow_unused=True, materialize_grads=True)
        if loss.requires_grad
        else (torch.zeros_like(leaf),)
    )
    return loss.detach(), grad, ready


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, rtol=1e-9, atol=1e-10))


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES, extra=st.integers(1, 4))
def test_padding_changes_nothing(name: str, seed: int, groups: tuple[int, ...], extra: int) -> None:
    method = registry.method(name)
    batch = random_batch(seed, groups=groups)
    garbage = torch.full((batch.size, extra), -7.5e5, dtype=torch.float64)
    wider = Batch(
        mask=torch.cat([batch.mask, torch.zeros(batch.size, extra, dtype=torch.bool)], 1),
        tokens={k: torch.cat([v, garbage.to(v.dtype)], 1) for k, v in batch._tokens.items()},
        rollouts=batch._rollouts,
        notes=batch.notes,
    )
    loss, grad, _ = run(method, batch)
    loss_wider, grad_wider, _ = run(method, wider)
    assert close(loss, loss_wider)
    assert close(grad, grad_wider[:, : batch.mask.shape[1]])
    assert not grad_wider[:, batch.mask.shape[1] :].any()


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES)
def test_what_stands_under_the_mask_never_matters(name: str, seed: int, groups: tuple[int, ...]) -> None:
    method = registry.method(name)
    batch = random_batch(seed, groups=groups)
    other = batch.replace(
        **{
            k: torch.where(
                batch.mask, v, torch.full_like(v, 3) if k == "token_ids" else torch.full_like(v, float("nan"))
            )
            for k, v in batch._tokens.items()
        }
    )
    loss, grad, _ = run(method, batch)
    loss_other, grad_other, _ = run(method, other)
    assert close(loss, loss_other)
    assert close(grad, grad_other)
    assert not grad[~batch.mask].any()


# Methods whose rule breaks a tie by the order of rollouts; the tie is part of the paper's rule.
ORDERED = frozenset({"mc-grpo"})


@pytest.mark.parametrize("name", sorted(set(EVERY) - ORDERED))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES)
def test_order_of_rollouts_and_groups_does_not_matter(name: str, seed: int, groups: tuple[int, ...]) -> None:
    method = registry.method(name)
    batch = random_batch(seed, groups=groups)
    if "exit_position" in batch:
        # Members of a serial group stand at distinct positions.
        batch = batch.with_rollouts(exit_position=torch.arange(batch.size, dtype=torch.float64))
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed + 1))
    loss, grad, _ = run(method, batch)
    loss_moved, grad_moved, _ = run(method, batch.select(order))
    assert close(loss, loss_moved)
    assert close(grad[order], grad_moved)


def edge_batches(seed: int) -> dict[str, Batch]:
    base = random_batch(seed, groups=(4, 3, 2))
    ones, zeros = torch.ones_like(base.rewards), torch.zeros_like(base.rewards)

    def rewarded(values: Tensor) -> Batch:
        parts = base["reward_components"].clone()
        parts[:, 0] = values
        return base.replace(rewards=values, accuracy=(values > 0).to(values.dtype), reward_components=parts)

    def shifted(by: float) -> Batch:
        sign = torch.where(torch.arange(base.mask.shape[1]) % 2 == 0, by, -by).to(torch.float64)
        return base.replace(logp=base._tokens["old_logp"] + sign)

    one_token = torch.zeros_like(base.mask)
    one_token[:, 0] = base.mask[:, 0]
    return {
        "all right": rewarded(ones),
        "all wrong": rewarded(zeros),
        "all equal 0.7": rewarded(0.7 * ones),
        "huge rewards": rewarded(1e6 * base.rewards),
        "groups of one": base.replace(group=torch.arange(base.size)),
        "empty completions": base.replace(mask=torch.zeros_like(base.mask)),
        "one token": base.replace(mask=one_token),
        "ratios of e^30": shifted(30.0),
        "bfloat16": Batch(
            mask=base.mask,
            tokens={k: v.bfloat16() if v.is_floating_point() else v for k, v in base._tokens.items()},
            rollouts=base._rollouts,
            notes=base.notes,
        ),
    }


@pytest.mark.parametrize("edge", list(edge_batches(0)))
@pytest.mark.parametrize("name", EVERY)
def test_loss_and_gradient_are_finite(name: str, edge: str) -> None:
    """On every valid batch; or the method refuses with a message that says what to do."""
    from cohort.errors import UsageError

    method = registry.method(name)
    for seed in range(3):
        try:
            loss, grad, _ = run(method, edge_batches(seed)[edge])
        except (UsageError, ValueError) as refusal:
            assert edge in ("groups of one", "all equal 0.7", "huge rewards"), refusal
            assert "group_size" in str(refusal) or "threshold" in str(refusal)
            return
        assert torch.isfinite(loss), edge
        assert torch.isfinite(grad).all(), edge


@pytest.mark.parametrize("name", EVERY)
def test_state_survives_a_checkpoint(name: str, tmp_path: Any) -> None:
    method = registry.method(name)
    batch = random_batch(3)
    states = method.observe(method.init(size=4), batch=batch, rollouts=[])
    torch.save(states, tmp_path / "states.pt")
    loaded = torch.load(tmp_path / "states.pt", weights_only=True)
    leaf = batch._tokens["logp"].clone().requires_grad_()
    first, second = (method.loss(method.prepare(batch.replace(logp=leaf), s), s).total for s in (states, loaded))
    assert torch.equal(first, second)
    assert str(states) == str(loaded)


@pytest.mark.parametrize("name", EVERY)
def test_a_method_reads_only_what_it_declares(name: str) -> None:
    """A batch without the fields that a method did not declare serves it as well."""
    from cohort.training.collect import ALWAYS

    method = registry.method(name)
    batch = random_batch(5)
    declared = method.needs(loss=True) | method.needs(loss=False) | ALWAYS | {"logp", "group", "exit_position"}
    fields = {k for k in batch.names if k in declared}
    bare = Batch(
        mask=batch.mask,
        tokens={k: v for k, v in batch._tokens.items() if k in fields},
        rollouts={k: v for k, v in batch._rollouts.items() if k in fields},
        notes=batch.notes,
    )
    assert close(run(method, batch)[0], run(method, bare)[0])
