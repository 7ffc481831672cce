"""PAPO: reward for needing the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.papo import double_entropy, patch_keep, perception
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch, StepInfo
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def gradients(method: str, batch: Batch) -> tuple[Tensor, Tensor, float]:
    """Of the loss, for logp and aug_logp; and the loss."""
    leaves = {name: batch._tokens[name].clone().requires_grad_() for name in ("logp", "aug_logp")}
    made = registry.method(method)
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(**leaves)).batch).total
    one, two = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return one, two, float(loss.detach())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_its_terms_it_is_the_base(seed: int) -> None:
    batch = batch_for("papo", seed=seed)
    plain = gradients("papo(gamma=0.0, eta_ori=0.0, eta_aug=0.0)", batch)
    base = gradients("grpo(kl_beta=0.0)", batch)
    assert torch.equal(plain[0], base[0])
    assert plain[2] == base[2]
    assert registry.method("dapo+papo").surrogate == registry.method("dapo").surrogate


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_an_image_that_changes_nothing_gives_nothing(seed: int, both: bool) -> None:
    batch = batch_for("papo", seed=seed)
    batch = batch.with_tokens(aug_logp=batch._tokens["logp"])
    only = f"papo(gamma=1.0, eta_ori=0.0, eta_aug=0.0, aug_gradient={both})"
    made = gradients(only, batch)
    assert torch.allclose(made[0], gradients("grpo(kl_beta=0.0)", batch)[0])
    assert not made[1].any()
    assert float(perception(batch, gamma=1.0, info=StepInfo())[batch.mask].abs().sum()) == 0.0


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 2))
def test_the_gradient_raises_tokens_that_the_image_helps(seed: int, gamma: float) -> None:
    batch = batch_for("papo", seed=seed)
    made = gradients(f"papo(gamma={gamma}, eta_ori=0.0, eta_aug=0.0)", batch)[0]
    added = made - gradients("grpo(kl_beta=0.0)", batch)[0]
    gap = batch["aug_logp"] - batch.logp
    want = -gamma * (1 - gap.exp()) * registry.method("papo").bind().weights(batch)
    inside = batch.mask & (gap.exp() - gap - 1 < 10)
    assert torch.allclose(added[inside], want[inside])
    helped = inside & (gap < 0)
    assert bool((added[helped] < 0).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_entropies_are_means_over_all_tokens_and_are_lowered(seed: int, ori: float, aug: float) -> None:
    batch = batch_for("papo", seed=seed)
    want = -ori * batch.logp[batch.mask].mean() - aug * batch["aug_logp"][batch.mask].mean()
    assert torch.allclose(double_entropy(batch, eta_ori=ori, eta_aug=aug, info=StepInfo()), want)
    held = gradients(f"papo(gamma=0.0, eta_ori={ori}, eta_aug={aug})", batch)
    alone = gradients(f"papo(gamma=0.0, eta_ori={ori}, eta_aug=0.0)", batch)
    assert torch.equal(held[0], alone[0])
    assert held[2] == pytest.approx(alone[2] - aug * float(batch["aug_logp"][batch.mask].mean()))
    # Scored with the sampling policy it is a constant; with the current one it pulls.
    assert not held[1].any()
    pulled = gradients(f"papo(gamma=0.0, eta_ori={ori}, eta_aug={aug}, aug_gradient=True)", batch)[1]
    assert torch.allclose(pulled, -aug * batch.mask.double() / batch.mask.sum())


def test_tokens_beyond_the_clamps_have_no_gradient() -> None:
    batch = batch_for("papo", seed=1)
    far = batch.with_tokens(aug_logp=batch.logp + torch.where(batch.mask, 3.0, 0.0))
    wide = batch.with_tokens(aug_logp=batch.logp - torch.where(batch.mask, 25.0, 0.0))
    for moved in (far, wide):
        added = gradients("papo(gamma=1.0, eta_ori=0.0, eta_aug=0.0, aug_gradient=True)", moved)
        assert not added[1].any()
        assert torch.equal(added[0], gradients("grpo(kl_beta=0.0)", moved)[0])
        assert bool((perception(moved, gamma=1.0, info=StepInfo())[batch.mask] == -10).all())


def test_gamma_is_annealed_and_the_entropies_follow() -> None:
    batch = batch_for("papo", seed=2)
    ending = {"gamma": 0.04, "gamma_end": 0.0, "anneal_share": 0.5}
    fixed, entropy = (fn(batch, gamma=0.04, info=StepInfo()) for fn in (perception, double_entropy))
    for step, share in ((0, 1.0), (2, 0.6), (5, 0.0), (9, 0.0)):
        info = StepInfo(step=step, steps=10)
        assert torch.allclose(perception(batch, **ending, info=info), share * fixed)
        assert torch.allclose(double_entropy(batch, **ending, info=info), share * entropy)


def test_a_group_without_signal_still_learns_to_look() -> None:
    batch = batch_for("papo", seed=3)
    batch = batch.replace(rewards=torch.ones_like(batch.rewards))
    assert gradients("papo", batch)[0].any()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 15), st.floats(0, 1), SEEDS)
def test_patches_are_blackened_whole(height: int, width: int, size: int, ratio: float, seed: int) -> None:
    rows, columns = -(-height // size), -(-width // size)
    draws = torch.rand(rows * columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    keep = patch_keep(draws, height=height, width=width, patch_size=size, mask_ratio=ratio)
    assert keep.shape == (height, width)
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        assert bool(keep[y, x]) == bool(draws[(y // size) * columns + x // size] >= ratio)


def test_training_without_images_is_refused() -> None:
    config = make_config({"model": "toy", "data": [{"prompt": "a", "answer": "b"}], "method": "papo"})
    with pytest.raises(UsageError, match="needs vision"):
        check_method(registry.method("papo"), config)
