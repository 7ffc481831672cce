"""CAPO (curvature-aware): tokens whose update would move the last layer too far leave the loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.methods import BoundMethod
from cohort.recipes.capo_curvature import last_layer, shifts
from cohort.reductions.moments import adam_direction, init_moments, row_means, updated_moments
from cohort.training.loop import one_step
from cohort.types import Batch, StepInfo
from tests import micro
from tests.recipes.losses import taken
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "credit/curvature_gate"
ADAM = (0.9, 0.999, 1e-8)
OFF = {"tau_fisher": float("inf"), "tau_hessian": float("inf")}


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bound(lr: float = 1e-3, **hyper: Any) -> BoundMethod:
    """The method before any step, at a learning rate."""
    return registry.method("capo-curvature", **hyper).bind({KEY: init_moments()}, StepInfo(lr=lr))


def judged(seed: int) -> Batch:
    """A random batch with advantages."""
    return bound(**OFF).assign(batch_for("capo-curvature", seed=seed))


def last_layer_batch(
    seed: int, *, vocabulary: int = 6, width: int = 4, top_k: int | None = None
) -> tuple[Batch, Tensor]:
    """A batch whose candidates come from the hook, with a last layer [V, d], which is returned."""
    batch = batch_for("capo-curvature", seed=seed)
    weight, hidden = random(seed, vocabulary, width), random(seed + 1, *batch.mask.shape, width)
    rollouts = [SimpleNamespace(context=(i,), tokens=row) for i, row in enumerate(batch["token_ids"].tolist())]
    access: Any = SimpleNamespace(
        rollouts=rollouts, temperature=1.0, head=lambda: weight, log_probs=lambda *_, **__: {"hidden": hidden}
    )
    made = last_layer(batch, access, top_k=top_k)
    return bound(**OFF).assign(made), weight


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["adam", "sgd"]))
def test_without_thresholds_it_is_the_base_method(seed: int, optimizer: str) -> None:
    batch = batch_for("capo-curvature", seed=seed)
    loss, grad = taken("capo-curvature", batch, StepInfo(lr=1e6), optimizer=optimizer, **OFF)
    same, same_grad = taken("grpo", batch, kl_beta=0.0)
    assert torch.allclose(loss, same)
    assert torch.allclose(grad, same_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-4, 1e-1))
def test_with_plain_gradients_the_shifts_have_a_closed_form(seed: int, lr: float) -> None:
    batch = judged(seed)
    _, policy = shifts(batch, init_moments(), adam=None, lr=lr)
    chosen = (batch["gate_ids"] == batch["token_ids"][..., None]).double()
    v = chosen - batch["gate_probs"]
    size = batch.advantages * (batch["gate_hidden"] ** 2).sum(-1) * (v**2).sum(-1)
    assert torch.allclose(policy, torch.where(batch.mask, (lr * size) ** 2 / 2, 0.0))
    first_order = torch.where(batch.mask, lr * batch.advantages * size, 0.0)
    assert bool((first_order >= 0).all())
    tiny, _ = shifts(batch, init_moments(), adam=None, lr=1e-9)
    assert torch.allclose(tiny / 1e-9, first_order / lr, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_the_objective_shift_predicts_what_the_update_of_one_token_does(seed: int) -> None:
    """m_H = A (pi_new(a) / pi_old(a) - 1) up to the third power of the learning rate, with a step along E."""
    batch, weight = last_layer_batch(seed)
    state = {
        **init_moments(),
        "ids": torch.arange(6),
        "m": random(seed + 2, 6, 4),
        "v": random(seed + 3, 6, 4) ** 2,
        "t": 3,
    }
    at = (batch.mask & (batch.advantages != 0)).nonzero()
    if not len(at):
        return
    row, column = at[0].tolist()
    h, action, advantage = (
        batch["gate_hidden"][row, column],
        batch["token_ids"][row, column],
        batch.advantages[row, column],
    )
    v = torch.eye(6, dtype=torch.float64)[action] - (weight @ h).softmax(-1)
    step = adam_direction((advantage * v[:, None] * h)[None], torch.arange(6)[None], state, ADAM)[0]
    errors = []
    for lr in (2e-2, 1e-2):
        predicted = shifts(batch, state, adam=ADAM, lr=lr)[0][row, column]
        new, old = ((weight + scale * step) @ h for scale in (lr, 0.0))
        truth = advantage * (new.softmax(-1)[action] / old.softmax(-1)[action] - 1)
        errors.append(float((predicted - truth).abs()))
    # Half the learning rate, an eighth of the error.
    assert errors[1] < errors[0] / 5 + 1e-12


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_direction_is_that_of_adam_and_of_its_gradient_before_any_step(seed: int) -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3, dtype=torch.float64))
    optimizer, state = torch.optim.Adam([parameter], lr=1.0), init_moments()
    every = torch.arange(5)
    for k in range(4):
        gradient = random(seed + k, 5, 3)
        before = parameter.detach().clone()
        parameter.grad = -gradient
        optimizer.step()
        expected = gradient if k == 0 else parameter.detach() - before
        assert torch.allclose(adam_direction(gradient[None], every[None], state, ADAM)[0], expected)
        state = updated_moments(state, every, gradient, ADAM)
    assert state["t"] == 4


def test_rows_are_averaged_over_the_tokens_that_hold_them_and_others_stay() -> None:
    ids = torch.tensor([[7, 2], [2, 4]])
    factor, h = random(0, 2, 2), random(1, 2, 3)
    rows, means = row_means(factor, ids, h)
    assert rows.tolist() == [2, 4, 7]
    assert torch.allclose(means[0], (factor[0, 1] * h[0] + factor[1, 0] * h[1]) / 2)
    assert torch.allclose(means[1:], torch.stack([factor[1, 1] * h[1], factor[0, 0] * h[0]]))
    first = updated_moments(init_moments(), torch.tensor([4, 9]), random(2, 2, 3), ADAM)
    second = updated_moments(first, rows, means, ADAM)
    assert second["ids"].tolist() == [2, 4, 7, 9]
    assert torch.equal(second["m"][3], first["m"][1])
    assert torch.allclose(second["m"][1], 0.9 * first["m"][0] + 0.1 * means[1])
    assert torch.allclose(second["v"][0], 0.001 * means[0] ** 2)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_tokens_are_judged_independently_of_each_other(seed: int) -> None:
    batch = judged(seed)
    state = {
        **init_moments(),
        "ids": torch.arange(5),
        "m": random(seed, 5, 3),
        "v": random(seed + 1, 5, 3) ** 2,
        "t": 1,
    }
    everything = shifts(batch, state, adam=ADAM, lr=1e-3)
    half = batch.loss_mask & (torch.arange(batch.mask.shape[1]) % 2 == 0)
    alone = shifts(batch.replace(loss_mask=half), state, adam=ADAM, lr=1e-3)
    for whole, part in zip(everything, alone, strict=True):
        assert torch.allclose(part, torch.where(half, whole, 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_rollouts_mean_is_over_its_accepted_tokens(seed: int) -> None:
    batch, method = batch_for("capo-curvature", seed=seed), bound(0.05, tau_fisher=0.002)
    made = method.prepare(batch)
    ready, accepted = made.batch, made.batch.loss_mask
    assert bool((accepted <= batch.mask).all())
    count = accepted.sum(1)
    total = method.weights(ready).sum(1) * batch.size
    assert torch.allclose(total, (count > 0).double())
    assert not taken(method.method, batch, method.info)[1][~accepted].any()
    share = 1 - int(accepted.sum()) / int(batch.mask.sum())
    assert made.metrics["gate/rejected"] == pytest.approx(share)


def test_more_is_rejected_at_a_higher_learning_rate_and_all_at_threshold_zero() -> None:
    batch = batch_for("capo-curvature", seed=4, groups=(8, 8, 8))
    shares = [bound(lr).prepare(batch).metrics["gate/rejected"] for lr in (1e-5, 1e-2, 1e-1, 10.0)]
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[1]
    none = bound(tau_fisher=0.0).assign(batch_for("capo-curvature", seed=4))
    assert not none.loss_mask.any()


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_all_candidates_are_the_vocabulary_and_few_are_its_most_likely(seed: int) -> None:
    whole, weight = last_layer_batch(seed)
    more, _ = last_layer_batch(seed, top_k=64)
    for a, b in zip(*(shifts(batch, init_moments(), adam=ADAM, lr=1e-3) for batch in (whole, more)), strict=True):
        assert torch.equal(a, b)
    few, _ = last_layer_batch(seed, top_k=2)
    logits = few["gate_hidden"] @ weight.T
    assert torch.equal(few["gate_ids"][few.mask], logits.topk(2).indices[few.mask])
    assert torch.allclose(few["gate_probs"].sum(-1)[few.mask], torch.ones(1, dtype=torch.float64))


def test_in_training_the_candidates_are_the_policys_and_the_state_moves_on(micro_root: Path, tmp_path: Path) -> None:
    expression = "capo-curvature(tau_fisher=0.5, tau_hessian=0.9, top_k=None)"
    with micro.ready(micro_root, expression, prompts_per_step=4, group_size=4) as (setup, optimizer, progress):
        batch = one_step(run_of(setup, optimizer, progress)).batch
        assert batch is not None
        at = (batch["gate_ids"] == batch["token_ids"][..., None]).double()
        own = (at * batch["gate_probs"].double()).sum(-1)[batch.mask]
        assert torch.allclose(own, batch["sampler_logp"][batch.mask].double().exp(), atol=1e-4)
        state = progress.states[KEY]
        assert state["t"] == 1
        assert state["ids"].tolist() == list(range(setup.policy.vocabulary))
        assert bool((state["v"] > 0).any())
        torch.save(progress.states, tmp_path / "states.pt")
        progress.states = torch.load(tmp_path / "states.pt", weights_only=True)
        one_step(run_of(setup, optimizer, progress))
        assert progress.states[KEY]["t"] == 2
