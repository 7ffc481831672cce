"""VPPO: tokens and rollouts that look at the image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.vppo import token_scores, trajectory_scale
from cohort.reductions.groups import token_mean
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import info_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
SHARES = st.floats(0.01, 1)


def gradient(method: str, batch: Batch) -> Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    bound = made.bind(info=info_of(batch))
    loss = bound.loss(bound.prepare(batch.with_tokens(logp=logp)).batch).total
    return torch.autograd.grad(loss, logp)[0]


def alpha(batch: Batch, beta_min: float = 0.9) -> tuple[Tensor, float]:
    return trajectory_scale(token_mean(token_scores(batch), batch.mask), batch.mask.any(1), beta_min=beta_min)


def credited(batch: Batch, **hyper: float) -> Batch:
    return registry.method("vppo", **hyper).bind().assign(batch)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_everything_kept_and_nothing_scaled_it_is_its_base(seed: int) -> None:
    batch = batch_for("vppo", seed=seed)
    plain = "vppo(token_fraction=1.0, beta_min=1.0, entropy_penalty=0.0)"
    assert torch.allclose(gradient(f"dapo+{plain}", batch), gradient("dapo", batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 0.99))
def test_the_scale_has_mean_one_and_starts_at_beta_min(seed: int, beta_min: float) -> None:
    batch = batch_for("vppo", seed=seed)
    there = batch.mask.any(1)
    scale, beta_max = alpha(batch, beta_min)
    assert float(scale[there].mean()) == pytest.approx(1.0, abs=1e-6)
    assert float(scale[there].min()) == pytest.approx(beta_min)
    assert float(scale[there].max()) == pytest.approx(beta_max)
    assert bool((scale[~there] == 1).all())
    # The rollout that looks most weighs most.
    means = torch.where(there, token_mean(token_scores(batch), batch.mask), -1.0)
    assert int(scale[there].argmax()) == int(means[there].argmax())


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHARES)
def test_the_tokens_that_look_most_are_trained_and_no_others(seed: int, share: float) -> None:
    batch = batch_for("vppo", seed=seed)
    grad = gradient(f"vppo(token_fraction={share}, entropy_penalty=0.0)", batch)
    base = gradient("vppo(token_fraction=1.0, entropy_penalty=0.0)", batch)
    scores = token_scores(batch)
    for i in range(batch.size):
        tokens = batch.mask[i].nonzero()[:, 0].tolist()
        kept = sorted(tokens, key=lambda t: (-float(scores[i, t]), t))[: math.ceil(share * len(tokens) - 1e-9)]
        for t in tokens:
            assert float(grad[i, t]) == (pytest.approx(float(base[i, t])) if t in kept else 0.0)


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHARES, st.floats(0.01, 1))
def test_no_advantage_changes_its_sign(seed: int, share: float, beta_min: float) -> None:
    batch = batch_for("vppo", seed=seed)
    made = credited(batch, token_fraction=share, beta_min=beta_min).advantages
    sign = registry.method("grpo").bind().assign(batch).advantages.sign()
    assert torch.equal(made.sign()[made != 0], sign[made != 0])
    assert bool(((made != 0).any(1) | (sign == 0).all(1) | ~batch.mask.any(1)).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 2))
def test_the_penalty_raises_the_likelihood_of_every_token(seed: int, coef: float) -> None:
    batch = batch_for("vppo", seed=seed)
    assume(bool(batch.mask.any()))
    added = gradient(f"dapo+vppo(entropy_penalty={coef})", batch) - gradient("dapo+vppo(entropy_penalty=0.0)", batch)
    kept = registry.method("dapo").bind(info=info_of(batch)).prepare(batch).batch
    if kept.size == batch.size:
        assert torch.allclose(added, -coef * batch.mask.double() / batch.mask.sum())
    assert bool((added <= 0).all())


@pytest.mark.parametrize("gap", [0.0, -0.75, -40.0])
def test_rollouts_that_look_alike_weigh_alike(gap: float) -> None:
    """Such as those of a prompt without an image, whose scores are 0."""
    batch = batch_for("vppo", seed=2)
    # Numbers that binary fractions hold, so that equal scores are equal to the bit.
    batch = batch.replace(old_logp=torch.full_like(batch.old_logp, -1.0))
    batch = batch.with_tokens(aug_logp=batch.old_logp + gap)
    scale, _ = alpha(batch)
    assert bool((scale == 1).all())
    made = credited(batch).advantages != 0
    acting = batch.mask & (registry.method("grpo").bind().assign(batch).advantages != 0)
    # Of tokens that look alike the earlier are kept.
    place = batch.mask.cumsum(1)
    count = torch.ceil(0.4 * batch.mask.sum(1, keepdim=True) - 1e-9)
    assert torch.equal(made, acting & (place <= count))


def test_a_rollout_without_tokens_is_not_the_least_looking_one() -> None:
    batch = batch_for("vppo", seed=4)
    empty = ~batch.mask.any(1)
    assert int(empty.sum()) == 1
    with_it = alpha(batch)[0][~empty]
    without, _ = alpha(batch.select((~empty).nonzero()[:, 0]))
    assert torch.equal(with_it, without)
    single = batch.select((~empty).nonzero()[:1, 0])
    assert alpha(single)[0].tolist() == [1.0]


def test_training_without_images_is_refused() -> None:
    config = make_config({"model": "toy", "data": [{"prompt": "a", "answer": "b"}], "method": "vppo"})
    with pytest.raises(UsageError, match="needs vision"):
        check_method(registry.method("vppo"), config)
