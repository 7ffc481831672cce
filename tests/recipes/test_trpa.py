"""TRPA: preference levels, pairs and a trust region."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from cohort import registry
from cohort.recipes.trpa import add_level, level_pairs
from cohort.reductions.groups import token_mean
from cohort.types import Batch, StepInfo
from tests.helpers import access_of
from tests.recipes.losses import on_policy, taken
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_pairs_are_those_of_a_double_loop_and_the_loss_their_mean(seed: int) -> None:
    batch = batch_for("trpa", seed=seed)
    level, group = batch["level"].tolist(), batch.group.tolist()
    expected = {
        (a, b) for a in range(batch.size) for b in range(batch.size) if group[a] == group[b] and level[a] < level[b]
    }
    found = list(zip(*(rows.tolist() for rows in level_pairs(batch)), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected
    u = token_mean(batch.logp - batch.ref_logp, batch.mask)
    if expected:
        each = [-logsigmoid(0.1 * (2.5 if level[a] == 1 else 1.0) * (u[a] - u[b])) for a, b in expected]
        loss, _ = taken("trpa", batch, tr_kl_coef=0.0)
        assert torch.allclose(loss, torch.stack(each).mean())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_what_winners_gain_losers_lose(seed: int) -> None:
    batch = batch_for("trpa", seed=seed)
    _, grad = taken("trpa", batch, tr_kl_coef=0.0)
    # A rollout's u is a mean over tokens, so the row sums are the derivatives with respect to it.
    if level_pairs(batch)[0].numel() and bool(batch.mask.any(1).all()):
        assert torch.allclose(grad.sum(), torch.zeros((), dtype=torch.float64), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_on_policy_the_trust_region_is_silent(seed: int, root: bool) -> None:
    batch = on_policy(batch_for("trpa", seed=seed))
    loss, grad = taken("trpa", batch, tr_kl_coef=3.0, sqrt_tr_kl=root)
    free, free_grad = taken("trpa", batch, tr_kl_coef=0.0)
    assert torch.allclose(loss, free + (1.5 if root else 0.0))
    assert torch.allclose(grad, free_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.5, 4))
def test_where_all_winners_are_right_anisotropy_is_a_larger_beta(seed: int, factor: float) -> None:
    batch = batch_for("trpa", seed=seed)
    batch = batch.with_rollouts(level=torch.where(batch["level"] == 1, 1, 3))
    if not level_pairs(batch)[0].numel():
        return
    loss, grad = taken("trpa", batch, beta=0.2, anisotropy=factor)
    same, same_grad = taken("trpa", batch, beta=0.2 * factor, anisotropy=1.0)
    assert torch.allclose(loss, same)
    assert torch.allclose(grad, same_grad)


def test_a_token_beyond_the_cap_keeps_no_trust_region_gradient() -> None:
    batch = batch_for("trpa", seed=1)
    for shift in (-800.0, 800.0):
        moved = batch.replace(logp=batch._tokens["old_logp"] + shift)
        loss, grad = taken("trpa", moved, tr_kl_coef=1.0)
        _, free = taken("trpa", moved, tr_kl_coef=0.0)
        assert torch.isfinite(loss)
        assert torch.equal(grad, free)


def test_levels_come_from_verifier_text_and_format() -> None:
    """Right; wrong; nothing that could be an answer; right in the wrong format."""
    texts = ["the answer is 4", "the answer is 5", "no idea", "4"]
    access = access_of(texts)
    kept = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    batch = Batch.of(
        torch.ones(4, 2),
        group=torch.zeros(4, dtype=torch.int64),
        rewards=kept[:, 0],
        accuracy=kept[:, 0],
        reward_components=kept,
    )
    info = StepInfo(reward_names=("exact", "format"))
    assert add_level(batch, access, format="format", info=info)["level"].tolist() == [1, 2, 3, 4]
    assert add_level(batch, access, info=info)["level"].tolist() == [1, 2, 3, 1]


def test_a_named_format_reward_is_asked_of_the_run() -> None:
    assert registry.method("trpa").components == {}
    assert registry.method("trpa", format="tags").components == {"tags": "preference_approximation"}
