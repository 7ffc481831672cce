"""f-GRPO: an f-divergence between good and bad rollouts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.advantage import zscore
from cohort.recipes.f_grpo import implicit_reward
from cohort.reductions.divergence import CANONICAL, LINKS, TABLE
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)
F = {
    "kl": lambda t: t * t.log(),
    "reverse_kl": lambda t: -t.log(),
    "pearson": lambda t: (t - 1) ** 2,
    "hellinger": lambda t: (t.sqrt() - 1) ** 2,
    "jensen_shannon": lambda t: t * t.log() - (1 + t) * ((1 + t) / 2).log(),
    "total_variation": lambda t: (t - 1).abs() / 2,
}
# f''(1), and for total variation, which has none, the slope of its link at 0.
SLOPE = {"kl": 1.0, "reverse_kl": 1.0, "pearson": 2.0, "hellinger": 0.5, "jensen_shannon": 0.5, "total_variation": 0.25}


@pytest.mark.parametrize("name", list(F))
@pytest.mark.parametrize("kind", list(LINKS))
def test_the_conjugate_is_the_supremum_that_defines_it(name: str, kind: str) -> None:
    """f*(s) = sup_t s t - f(t), on a fine grid of t."""
    link, conjugate = LINKS[kind][name]
    r = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64)
    t = torch.logspace(-9, 9, 50_001, base=math.e, dtype=torch.float64)
    supremum = torch.stack([(s * t - F[name](t)).amax() for s in link(r)])
    assert torch.allclose(conjugate(r), supremum, atol=2e-4)


@pytest.mark.parametrize("name", [name for name in F if name != "total_variation"])
def test_the_canonical_link_is_the_derivative_of_f_at_the_ratio(name: str) -> None:
    r = torch.linspace(-2, 2, 9, dtype=torch.float64)
    t = r.exp().requires_grad_()
    (slope,) = torch.autograd.grad(F[name](t).sum(), t)
    assert torch.allclose(CANONICAL[name][0](r), slope)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(list(F)), st.floats(0.05, 1))
def test_at_the_reference_it_is_reinforce(seed: int, divergence: str, beta: float) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["ref_logp"])
    _, grad = taken("f-grpo", batch, divergence=divergence, beta=beta, link_kind="canonical")
    each = -SLOPE[divergence] * beta / batch.size * zscore(batch)
    assert torch.allclose(grad, torch.where(batch.mask, each[:, None], 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(list(F)), st.sampled_from(list(LINKS)))
def test_good_rollouts_are_never_pushed_down_and_bad_ones_never_up(seed: int, divergence: str, kind: str) -> None:
    batch = random_batch(seed, drift=1.0)
    _, grad = taken("f-grpo", batch, divergence=divergence, beta=0.3, link_kind=kind)
    advantages = zscore(batch)
    fine = implicit_reward(batch, beta=0.3, gamma=0.0) > -2 if (divergence, kind) == ("pearson", "table") else True
    assert bool((grad <= 0)[advantages > 0].all())
    assert bool((grad >= 0)[(advantages < 0) & fine].all())
    assert not grad[advantages == 0].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 1))
def test_total_variation_weighs_a_sigmoid_with_the_advantages(seed: int, gamma: float) -> None:
    batch = random_batch(seed)
    loss, _ = taken("f-grpo", batch, divergence="total_variation", beta=0.4, gamma=gamma)
    reward = implicit_reward(batch, beta=0.4, gamma=gamma)
    assert torch.allclose(loss, -(zscore(batch) * (reward.sigmoid() - 0.5)).mean())
    assert "old_logp" in registry.method("f-grpo", gamma=gamma).needs(loss=True)
    assert "old_logp" not in registry.method("f-grpo").needs(loss=True)


@pytest.mark.parametrize("name", list(TABLE))
@pytest.mark.parametrize("kind", list(LINKS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rollouts_far_from_the_reference_keep_loss_and_gradient_finite(
    name: str, kind: str, dtype: torch.dtype
) -> None:
    batch = random_batch(1, dtype=dtype)
    for shift in (-300.0, 300.0):
        moved = batch.replace(logp=batch._tokens["ref_logp"] + shift)
        loss, grad = taken("f-grpo", moved, divergence=name, link_kind=kind, beta=1.0)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()


def test_beyond_the_clip_a_bad_rollout_has_no_gradient() -> None:
    batch = random_batch(7)
    moved = batch.replace(logp=batch._tokens["ref_logp"] + 5.0)
    bad = (zscore(batch) < 0)[:, None] & batch.mask
    assert bad.any()
    assert not taken("f-grpo", moved, conj_clip=0.5, beta=1.0)[1][bad].any()
    assert bool((taken("f-grpo", moved, conj_clip=math.inf, beta=1.0)[1][bad] > 0).all())
