"""The correction from sampler to trainer: bounds, levels, and what must hold whatever was sampled."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes import correction
from cohort.methods import MethodError
from cohort.types import Batch, StepInfo
from tests.helpers import random_batch
from tests.traits import gradients, with_leaves

SEEDS = st.integers(0, 10_000)
LEVELS = st.sampled_from(correction.LEVELS)
OPEN = {"low": None, "high": None, "proximal": "trainer", "mode": "truncate"}


def drifted(seed: int, scale: float = 0.4) -> Batch:
    """A batch whose sampler differs from the trainer."""
    batch = random_batch(seed)
    noise = scale * torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(seed), dtype=batch.dtype)
    return batch.replace(sampler_logp=batch.stored("old_logp") + noise)


def loss_of(expression: str, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    method = registry.method(expression)
    batch, leaves = with_leaves(method, batch)
    total = method.bind().loss(method.bind().prepare(batch).batch).total
    return total.detach(), gradients(total, leaves)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, level=LEVELS, mode=st.sampled_from(correction.MODES), normalize=st.booleans())
def test_a_sampler_that_is_the_trainer_is_not_corrected(seed: int, level: str, mode: str, normalize: bool) -> None:
    batch = random_batch(seed)
    batch = batch.replace(sampler_logp=batch.stored("old_logp"))
    method = f"rollout-correction(level={level!r}, mode={mode!r}, batch_normalize={normalize})"
    criteria = "rollout-correction(criteria=[{'statistic': 'seq_mean_k3', 'high': 1e-9}])"
    plain, expected = loss_of("grpo(kl_beta=0.0)", batch)
    for expression in (method, criteria):
        loss, grads = loss_of(expression, batch)
        torch.testing.assert_close(loss, plain)
        torch.testing.assert_close(grads["logp"], expected["logp"])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, level=LEVELS, low=st.floats(0.1, 0.9), high=st.floats(1.1, 4.0))
def test_weights_lie_within_their_bounds(seed: int, level: str, low: float, high: float) -> None:
    batch = drifted(seed, 3.0)
    cut = correction.importance_weight(batch, level=level, mode="truncate", low=low, high=high, proximal="trainer")
    masked = correction.importance_weight(batch, level=level, mode="mask", low=low, high=high, proximal="trainer")
    inside = cut[batch.mask]
    assert bool(((inside >= low) & (inside <= high)).all())
    # Masking agrees with truncation where neither bound acts, and is 0 elsewhere.
    held = (cut > low) & (cut < high)
    torch.testing.assert_close(masked, torch.where(held & batch.mask, cut, 0.0))
    assert not bool(cut[~batch.mask].any())


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, level=LEVELS)
def test_normalized_weights_have_mean_one(seed: int, level: str) -> None:
    batch = drifted(seed)
    w = correction.normalized_importance_weight(batch, level=level, low=0.5, high=2.0)
    each = w[batch.mask] if level == "token" else w.amax(1)[batch.mask.any(1)]
    assert float(each.mean()) == pytest.approx(1.0)


@given(seed=SEEDS, of=st.sampled_from(["k2", "k3"]), over=st.sampled_from(["token", "seq_sum", "seq_mean", "seq_max"]))
@settings(max_examples=25, deadline=None)
def test_estimates_of_the_divergence_are_never_negative(seed: int, of: str, over: str) -> None:
    batch = drifted(seed, 2.0)
    d = correction.log_ratio(batch)
    assert float(correction.statistic(d, batch.mask, f"{over}_{of}").min()) >= -1e-12


def test_repeating_a_rollout_squares_its_sequence_weight_and_leaves_its_geometric_one() -> None:
    d = torch.tensor([[0.1, -0.3, 0.4]], dtype=torch.float64)

    def weight(times: int, level: str) -> float:
        mask = torch.ones(1, 3 * times, dtype=torch.bool)
        zeros = torch.zeros(1, 3 * times, dtype=torch.float64)
        batch = Batch.of(mask, group=torch.tensor([0]), old_logp=d.repeat(1, times), sampler_logp=zeros)
        return float(correction.importance_weight(batch, level=level, **OPEN)[0, 0])

    assert weight(2, "sequence") == pytest.approx(weight(1, "sequence") ** 2)
    assert weight(2, "geometric") == pytest.approx(weight(1, "geometric"))
    assert weight(1, "sequence") == pytest.approx(math.exp(0.2))


def test_unbounded_sequence_weights_take_an_expectation_from_the_sampler_to_the_trainer() -> None:
    """E_sampler[w f] = E_trainer[f], exactly, over all sequences of two tokens from a vocabulary of three."""
    g = torch.Generator().manual_seed(0)
    logp = {who: torch.randn(3, 3, generator=g, dtype=torch.float64).log_softmax(-1) for who in ("trainer", "sampler")}
    first = {who: table[0].log_softmax(-1) for who, table in logp.items()}
    pairs = [(a, b) for a in range(3) for b in range(3)]
    each = {who: torch.stack([torch.stack([first[who][a], logp[who][a, b]]) for a, b in pairs]) for who in logp}
    f = torch.randn(9, generator=g, dtype=torch.float64)
    batch = Batch.of(torch.ones(9, 2), group=torch.arange(9), old_logp=each["trainer"], sampler_logp=each["sampler"])
    w = correction.importance_weight(batch, level="sequence", **OPEN)[:, 0]
    expected = (each["trainer"].sum(1).exp() * f).sum()
    torch.testing.assert_close((each["sampler"].sum(1).exp() * w * f).sum(), expected)


def test_when_everything_is_rejected_the_loss_is_nothing_and_has_a_gradient_of_nothing() -> None:
    batch = drifted(3, 5.0)
    loss, grads = loss_of("rollout-correction(criteria=[{'statistic': 'token_k2', 'high': 1e-12}])", batch)
    assert float(loss) == 0.0
    assert not bool(grads["logp"].any())


def test_what_is_rejected_leaves_the_divisor() -> None:
    batch = drifted(5)
    method = registry.method("rollout-correction(high=None, criteria=[{'statistic': 'token_k1', 'high': 1.2}])")
    kept, weight = method.bind().correct(batch)
    assert weight is not None
    assert 0 < int(kept.loss_mask.sum()) < int(batch.mask.sum())
    assert bool((weight[~kept.loss_mask] == 0).all())
    shares = method.bind().weights(kept)
    some = kept.loss_mask.any(1)
    torch.testing.assert_close(shares.sum(1)[some], torch.full_like(shares.sum(1)[some], 1 / batch.size))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("criteria=[{'statistic': 'seq_max_k1', 'high': 2.0}]", "token_k1"),
        ("criteria=[{'statistic': 'token_k3'}]", "needs a bound"),
        ("criteria=['token_k3']", "is no criterion"),
        ("low=3.0, high=2.0", "lies above"),
        ("loss='reinforce'", "proximal='sampler'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(arguments: str, named: str) -> None:
    with pytest.raises(MethodError, match=named):
        registry.method(f"rollout-correction({arguments})")


def test_staleness_counts_from_the_oldest_token_and_drops_whole_groups() -> None:
    from cohort.axes.filter import fresh_groups, staleness

    version = torch.tensor([[5, 6, 0], [7, 7, 7], [9, 0, 0], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    batch = Batch(mask=mask, tokens={"version": version}, rollouts={"group": torch.tensor([4, 4, 2, 2])})
    info = StepInfo(version=9)
    assert staleness(batch, version=9).tolist() == [4, 2, 0, 0]
    assert fresh_groups(batch, max_staleness=3, info=info).tolist() == [False, False, True, True]
    assert fresh_groups(batch, max_staleness=4, info=info).all()


def test_metrics_say_what_the_correction_did() -> None:
    from cohort.training.diagnostics import of_correction

    batch = drifted(2)
    weights: dict[str, Any] = {"correction": correction.importance_weight(batch)}
    found = of_correction(batch.with_tokens(**weights))
    d = correction.log_ratio(batch)[batch.mask]
    assert found["correction/weight_mean"] == pytest.approx(float(d.exp().clamp(max=2.0).mean()))
    assert found["correction/k1"] == pytest.approx(-float(d.mean()))
    assert found["correction/k3"] == pytest.approx(float((d.exp() - 1 - d).mean()))
    assert 0 < found["correction/effective_share"] <= 1
    assert found["correction/zero_fraction"] == 0.0
    assert of_correction(batch) == {}
