"""What must hold for every method on every batch, whatever the method."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.methods import Method
from cohort.types import Batch, StepInfo
from tests.traits import batch_for, gradients, info_for, rollouts_for, trait, with_leaves

EVERY = registry.names()
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (3,), (2, 2, 2, 2, 2), (6, 2)])


Gradients = dict[str, Tensor]


def run(
    asked: str | Method, batch: Batch, info: StepInfo | None = None, before: Batch | None = None
) -> tuple[Tensor, Gradients, Batch]:
    """Loss and its gradient with respect to what the forward pass gives, through every stage of the update.

    Args:
        before: batch of an earlier step.
    """
    method = registry.method(asked) if isinstance(asked, str) else asked
    info = info or info_for(batch, *([asked] if isinstance(asked, str) else []))
    batch, leaves = with_leaves(method, batch)
    bound = method.bind(method.init(size=int(batch["row"].max()) + 1), info)
    for seen in [batch] if before is None else [before, batch]:
        bound = bound.with_states(bound.on_rollouts(seen, rollouts_for(seen)))
    ready = bound.prepare(batch).batch
    loss = bound.loss(ready).total if ready.size else torch.zeros((), dtype=batch.dtype)
    return loss.detach(), gradients(loss, leaves), ready


def close(a: Tensor | Gradients, b: Tensor | Gradients) -> bool:
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return set(a) == set(b) and all(close(a[name], b[name]) for name in a)
    assert isinstance(b, Tensor)
    return bool(torch.allclose(a, b, rtol=1e-9, atol=1e-10))


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES, extra=st.integers(1, 4))
def test_padding_changes_nothing(name: str, seed: int, groups: tuple[int, ...], extra: int) -> None:
    batch = batch_for(name, seed=seed, groups=groups)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([x, torch.full((batch.size, extra, *x.shape[2:]), -7.5e5, dtype=torch.float64).to(x.dtype)], 1)

    wider = Batch(
        mask=torch.cat([batch.mask, torch.zeros(batch.size, extra, dtype=torch.bool)], 1),
        tokens={k: padded(v) for k, v in batch._tokens.items()},
        rollouts=batch._rollouts,
    )
    loss, grad, _ = run(name, batch)
    loss_wider, grad_wider, _ = run(name, wider, info_for(batch, name))
    assert close(loss, loss_wider)
    assert close(grad, {k: v[:, : batch.mask.shape[1]] for k, v in grad_wider.items()})
    assert not any(v[:, batch.mask.shape[1] :].any() for v in grad_wider.values())


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES)
def test_what_stands_under_the_mask_never_matters(name: str, seed: int, groups: tuple[int, ...]) -> None:
    batch = batch_for(name, seed=seed, groups=groups)

    def spoilt(x: Tensor) -> Tensor:
        garbage = torch.full_like(x, float("nan") if x.is_floating_point() else 3)
        return torch.where(batch.mask.reshape(*batch.mask.shape, *[1] * (x.ndim - 2)), x, garbage)

    other = batch.with_tokens(**{k: spoilt(v) for k, v in batch._tokens.items()})
    loss, grad, _ = run(name, batch)
    loss_other, grad_other, _ = run(name, other)
    assert close(loss, loss_other)
    assert close(grad, grad_other)
    assert not any(v[~batch.mask].any() for v in grad.values())


@pytest.mark.parametrize("name", [name for name in EVERY if not trait(name, "ORDERED")])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), groups=SHAPES)
def test_order_of_rollouts_and_groups_does_not_matter(name: str, seed: int, groups: tuple[int, ...]) -> None:
    batch = batch_for(name, seed=seed, groups=groups)
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed + 1))
    loss, grad, _ = run(name, batch)
    loss_moved, grad_moved, _ = run(name, batch.select(order))
    assert close(loss, loss_moved)
    assert close({k: v[order] for k, v in grad.items()}, grad_moved)


@lru_cache(maxsize=3)
def edge_batches(name: str, seed: int) -> dict[str, Batch]:
    base = batch_for(name, seed=seed, groups=(4, 3, 2))
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
        ),
    }


@pytest.mark.parametrize("edge", list(edge_batches("grpo", 0)))
@pytest.mark.parametrize("name", EVERY)
def test_loss_and_gradient_are_finite(name: str, edge: str) -> None:
    """On every valid batch; or the method refuses with a message that says what to do."""
    from cohort.errors import UsageError

    for seed in range(3):
        try:
            loss, grad, _ = run(
                name, edge_batches(name, seed)[edge], before=batch_for(name, seed=seed, groups=(4, 3, 2))
            )
        except (UsageError, ValueError) as refusal:
            assert edge in ("groups of one", "all equal 0.7", "huge rewards"), refusal
            assert "group_size" in str(refusal) or "threshold" in str(refusal)
            return
        assert torch.isfinite(loss), edge
        assert all(torch.isfinite(v).all() for v in grad.values()), edge


@pytest.mark.parametrize("name", EVERY)
def test_state_survives_a_checkpoint(name: str, tmp_path: Any) -> None:
    method = registry.method(name)
    batch = batch_for(name, seed=3)
    info = info_for(batch, name)
    states = method.bind(method.init(size=4), info).on_rollouts(batch, rollouts_for(batch))
    torch.save(states, tmp_path / "states.pt")
    loaded = torch.load(tmp_path / "states.pt", weights_only=True)
    first, second = (
        bound.loss(bound.prepare(batch).batch).total for bound in (method.bind(s, info) for s in (states, loaded))
    )
    assert torch.equal(first, second)
    assert str(states) == str(loaded)


@pytest.mark.parametrize("name", EVERY)
def test_a_method_reads_only_what_it_declares(name: str) -> None:
    """A batch without the fields that a method did not declare serves it as well."""
    from cohort.rollouts.batching import ALWAYS

    method = registry.method(name)
    batch = batch_for(name, seed=5)
    declared = method.needs(loss=True) | method.needs(loss=False) | ALWAYS | {"logp", "group"} | method.provides
    fields = {k for k in batch.names if k in declared}
    bare = Batch(
        mask=batch.mask,
        tokens={k: v for k, v in batch._tokens.items() if k in fields},
        rollouts={k: v for k, v in batch._rollouts.items() if k in fields},
    )
    assert close(run(name, batch)[0], run(name, bare)[0])
