"""DCPO: REINFORCE towards a hotter or colder policy, steered by the entropy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.dcpo import controlled_temperature, reinforce_share
from cohort.types import Batch
from tests.helpers import access_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "credit/towards_temperature"


def assigned(batch: Batch, entropy: float, **hyper: Any) -> torch.Tensor:
    return registry.method("dcpo", **hyper).bind({KEY: {"entropy": entropy}}).assign(batch).advantages


def grpo(batch: Batch) -> torch.Tensor:
    return registry.method("grpo(std_ddof=1)").bind().assign(batch).advantages


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.0, 2.0))
def test_at_the_target_or_without_a_correct_rollout_it_is_grpo(seed: int, entropy: float) -> None:
    batch = batch_for("dcpo", seed=seed)
    assert torch.equal(assigned(batch, 0.4, target_entropy=0.4), grpo(batch))
    wrong = batch.replace(rewards=torch.zeros_like(batch.rewards))
    assert torch.equal(assigned(wrong, entropy), grpo(wrong))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 5.0), st.integers(0, 100).map(lambda n: n / 100), st.floats(0.0, 3.0))
def test_the_controller_stays_in_its_bounds(entropy: float, correct: float, target: float) -> None:
    alpha = reinforce_share(entropy, correct, target_entropy=target, cap=0.1)
    assert 0 <= alpha < 1
    if correct > 0:
        assert math.isclose(alpha / (1 - alpha), min(abs(target - entropy), 0.1) / correct, rel_tol=1e-6, abs_tol=1e-12)
    hot = controlled_temperature(entropy, target_entropy=target, hot=1.2, cold=0.8)
    assert hot == (1.2 if entropy <= target else 0.8)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.0, 1.0))
def test_at_the_same_temperature_correct_rollouts_get_alpha_more(seed: int, entropy: float) -> None:
    batch = batch_for("dcpo", seed=seed)
    batch = batch.with_tokens(old_logp_temp=batch._tokens["old_logp"])
    correct = (batch.rewards > 0.05).double()
    alpha = reinforce_share(entropy, float(correct.mean()), target_entropy=0.25, cap=0.1)
    expected = (1 - alpha) * grpo(batch) + torch.where(batch.mask, alpha * correct[:, None], 0.0)
    assert torch.allclose(assigned(batch, entropy), expected)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.3, 3.0))
def test_the_ratio_has_mean_one_under_the_policy(seed: int, temperature: float) -> None:
    """Over all tokens at one place, each as a rollout of its own, the bonus averages to alpha under pi_old."""
    logits = 2 * torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logp, heated = logits.log_softmax(0), (logits / temperature).log_softmax(0)
    ones = torch.ones(9, dtype=torch.float64)
    batch = Batch.of(torch.ones(9, 1), group=torch.zeros(9, dtype=torch.int64), rewards=ones, old_logp=logp[:, None])
    value = assigned(batch.with_tokens(old_logp_temp=heated[:, None]), 0.0)[:, 0]
    alpha = reinforce_share(0.0, 1.0, target_entropy=0.25, cap=0.1)
    assert math.isclose(float((logp.exp() * value).sum()), alpha, rel_tol=1e-9)
    # Its point: a hotter target gives unlikely tokens of correct rollouts most, a colder one least.
    by_likelihood = value[logp.argsort()].diff()
    assert bool((by_likelihood <= 1e-12).all()) if temperature > 1 else bool((by_likelihood >= -1e-12).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_gradient_moves_entropy_to_the_side_that_the_state_asks_for(seed: int) -> None:
    """Of the bonus alone, in expectation under the policy: d entropy / d logits along it."""
    logits = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    p = logits.softmax(0)
    (slope,) = torch.autograd.grad(-(p * p.log()).sum(), logits, retain_graph=True)
    logp = p.log().detach()
    for entropy, sign in ((0.0, 1), (9.0, -1)):
        temperature = controlled_temperature(entropy, target_entropy=0.25, hot=1.2, cold=0.8)
        heated = (logits.detach() / temperature).log_softmax(0)
        batch = Batch.of(
            torch.ones(6, 1),
            group=torch.zeros(6, dtype=torch.int64),
            rewards=torch.ones(6, dtype=torch.float64),
            old_logp=logp[:, None],
        ).with_tokens(old_logp_temp=heated[:, None])
        value = assigned(batch, entropy)[:, 0]
        (ascent,) = torch.autograd.grad((p.detach() * value * p.log()).sum(), logits, retain_graph=True)
        assert sign * float(ascent @ slope) > 0


def test_the_pass_is_taken_at_the_temperature_of_the_state_times_that_of_the_run() -> None:
    asked: list[float] = []

    def log_probs(contexts: Any, completions: Any, *, temperature: float, support: Any) -> dict[str, torch.Tensor]:
        asked.append(temperature)
        return {"logp": torch.full((len(completions), max(map(len, completions))), -temperature)}

    access = replace(access_of(["ab", "c"], log_probs=log_probs), temperature=0.5)
    batch = Batch(mask=torch.ones(2, 3))
    made = registry.method("dcpo(hot=1.5)")
    states = made.init(size=2)
    assert states[KEY] == {"entropy": 0.0}
    assert torch.equal(made.bind(states).on_scored(batch, access)["old_logp_temp"], torch.full((2, 3), -0.75))
    made.bind({KEY: {"entropy": 0.3}}).on_scored(batch, access)
    assert asked == [0.75, 0.4]


def test_the_state_is_the_mean_surprisal_of_the_last_update() -> None:
    made = registry.method("dcpo")
    batch = batch_for("dcpo", seed=4)
    after = made.bind(made.init(size=3)).on_step_end(batch, [], None)
    assert after[KEY]["entropy"] == pytest.approx(-float(batch._tokens["logp"][batch.mask].mean()))
    empty = batch.replace(mask=torch.zeros_like(batch.mask))
    assert made.bind(after).on_step_end(empty, [], None)[KEY] == after[KEY]


def test_the_second_clip_must_lie_above_the_first() -> None:
    assert registry.method("dcpo").surrogate == registry.method("grpo").surrogate
    assert registry.method("dcpo(dual_clip=3.0)").surrogate is not None
    with pytest.raises(MethodError, match="must be above 1"):
        registry.method("dcpo(dual_clip=1.1)")
