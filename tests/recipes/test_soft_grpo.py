"""SofT-GRPO: the density of a soft token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.soft_grpo import density, mixture, perturb, soft_logp
from cohort.training.checks import check_method
from cohort.training.config import make_config
from tests.recipes.losses import taken
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
CLAMP = (-1.5, 3.0)


def drawn(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """(probabilities [9, K] that no cut removes where K is 3, uniforms)."""
    g = torch.Generator().manual_seed(seed)
    probs = torch.randn(9, count, generator=g, dtype=torch.float64).clamp(-2, 2).div(2).softmax(-1)
    return probs, torch.rand(9, count, generator=g, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_sampling_policy_recovers_the_noise_that_was_drawn(seed: int) -> None:
    probs, uniforms = drawn(seed, count=3)
    noise, perturbed = perturb(probs, uniforms)
    log_probs = (probs + 1e-6).log()
    assert bool((log_probs > -3).all())
    assert torch.allclose(perturbed - log_probs, noise)
    expected = (-noise - (-noise).exp()).mean(-1)
    assert torch.allclose(density(log_probs, perturbed, noise_clamp=CLAMP, log_prob_cut=-3.0), expected)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_mixture_weights_sum_to_one_and_a_cold_mixture_is_a_gumbel_max_draw(seed: int) -> None:
    probs, uniforms = drawn(seed)
    _, perturbed = perturb(probs, uniforms, noise_clamp=(-50.0, 50.0))
    assert torch.allclose(mixture(perturbed).sum(-1), torch.ones(9, dtype=torch.float64))
    cold = mixture(perturbed, gumbel_temperature=1e-9)
    assert torch.equal(cold.argmax(-1), perturbed.argmax(-1))
    assert torch.allclose(cold.amax(-1), torch.ones(9, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.04]))
def test_without_soft_steps_it_is_grpo(seed: int, beta: float) -> None:
    batch = batch_for("soft-grpo", seed=seed)
    batch = batch.with_tokens(soft=torch.zeros_like(batch.mask))
    loss, grad = taken("soft-grpo", batch, kl_beta=beta)
    same, same_grad = taken("grpo", batch, kl_beta=beta)
    assert torch.allclose(loss, same)
    assert torch.allclose(grad, same_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-5, 5))
def test_a_constant_added_to_all_logits_changes_nothing(seed: int, shift: float) -> None:
    batch = batch_for("soft-grpo", seed=seed)
    shifted = batch.with_tokens(logits=batch["logits"] + shift)
    assert torch.allclose(soft_logp(batch), soft_logp(shifted))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_gradient_reaches_soft_steps_through_kept_candidates_within_the_clamp(seed: int) -> None:
    batch = batch_for("soft-grpo", seed=seed)
    logits = batch["logits"].clone().requires_grad_()
    batch = batch.with_tokens(logits=logits)
    (grad,) = torch.autograd.grad(soft_logp(batch)[batch.mask].sum(), logits)
    soft = batch.mask & (batch["soft"] > 0)
    assert not grad[~soft].any()
    # Only differences between logits matter.
    assert torch.allclose(grad.sum(-1), torch.zeros_like(grad.sum(-1)), atol=1e-9)
    chosen = torch.zeros_like(grad, dtype=torch.bool).scatter(-1, batch["topk_ids"], True)
    assert not grad[~chosen].any()
    log_probs = (logits.gather(-1, batch["topk_ids"]).softmax(-1) + 1e-6).log()
    noise = batch["topk_perturbed"] - log_probs
    stopped = ((noise <= CLAMP[0]) | (noise >= CLAMP[1]) | (log_probs <= -3)).all(-1)
    assert not grad[stopped].any()


def test_a_candidate_below_the_cut_is_left_out_of_the_mean() -> None:
    log_probs = torch.tensor([[0.9, 0.07, 0.03]], dtype=torch.float64).log()
    perturbed = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    both = density(log_probs[:, :2], perturbed[:, :2], noise_clamp=CLAMP, log_prob_cut=-3.0)
    assert torch.equal(density(log_probs, perturbed, noise_clamp=CLAMP, log_prob_cut=-3.0), both)
    # Nothing kept: no density, and no division by zero.
    assert float(density(log_probs, perturbed, noise_clamp=CLAMP, log_prob_cut=0.0)) == 0


def test_training_is_refused_since_no_engine_feeds_mixtures_back() -> None:
    method = registry.method("soft-grpo")
    assert method.requires == "sampling"
    with pytest.raises(UsageError, match="needs sampling"):
        check_method(method, make_config({"model": "toy", "method": "soft-grpo"}))
    with pytest.raises(MethodError, match="lower < upper"):
        registry.method("soft-grpo", noise_clamp=(3.0, -1.5))
