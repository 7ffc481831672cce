"""OPD: a teacher scores what the student writes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.opd import distance, gap
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


def taught(seed: int, *, same: bool = False) -> Batch:
    """A random batch with the logits of a student and of a teacher."""
    batch, rng = random_batch(seed), torch.Generator().manual_seed(seed)
    shape = (*batch.mask.shape, 7)
    student, teacher = (2 * torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return batch.with_tokens(logits=student, teacher_logits=student if same else teacher)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_distance_is_never_negative_and_none_to_itself(seed: int, beta: float) -> None:
    assert bool((distance(taught(seed), beta=beta) >= -1e-12).all())
    assert float(distance(taught(seed, same=True), beta=beta).abs().max()) < 1e-12


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_one_half_is_symmetric(seed: int) -> None:
    batch = taught(seed)
    turned = batch.with_tokens(logits=batch["teacher_logits"], teacher_logits=batch["logits"])
    assert torch.allclose(distance(batch, beta=0.5), distance(turned, beta=0.5))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_small_beta_tends_to_the_forward_divergence(seed: int) -> None:
    batch = taught(seed)
    assert torch.allclose(distance(batch, beta=1e-5) / 1e-5, distance(batch, beta=0.0), rtol=1e-2, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_the_expected_gradient_is_that_of_the_reverse_divergence(seed: int) -> None:
    """Over all tokens y ~ p of one state: sum_y p(y) A(y) d log p(y) = -d KL(p || q), A = log q - log p."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, generator=rng, dtype=torch.float64).requires_grad_()
    log_q = torch.randn(7, generator=rng, dtype=torch.float64).log_softmax(0)
    log_p = logits.log_softmax(0)
    weighed = (log_p.detach().exp() * (log_q - log_p.detach()) * log_p).sum()
    (pushed,) = torch.autograd.grad(weighed, logits, retain_graph=True)
    (fallen,) = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), logits)
    assert torch.allclose(pushed, -fallen)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["clip", "probability-bound"]))
def test_a_teacher_that_says_the_same_pulls_nowhere(seed: int, surrogate: str) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["old_logp"])
    batch = batch.with_tokens(teacher_logp=batch._tokens["old_logp"])
    method = registry.method("opd", mode="policy-gradient", surrogate=surrogate)
    assert not taken(method, batch)[1].any()


def test_the_gap_is_held_and_finite() -> None:
    batch = random_batch(3)
    batch = batch.with_tokens(teacher_logp=torch.full_like(batch.logp, -torch.inf))
    assert bool(gap(batch, batch.logp, None).isfinite().all())
    assert float(gap(batch, batch.logp, 6.0).min()) == -6.0
