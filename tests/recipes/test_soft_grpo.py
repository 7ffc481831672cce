"""SofT-GRPO: the density of a soft token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.fused import FusedStep
from cohort.engine.native.plain import PlainStep
from cohort.environments import SingleTurn
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.policies.causal_lm import CausalLM
from cohort.rollouts.runner import Runner
from cohort.types import Rollout
from cohort.types.soft import Mixer, density, mixture, perturb
from cohort.types.support import Support
from tests.environments.worlds import grader
from tests.helpers import compiled, prompt_of, request_of, tiny_policy
from tests.recipes.losses import taken
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
CLAMP = (-1.5, 3.0)
MIXER = Mixer(candidates=6)


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
    loss, grad = taken("soft-grpo", batch, kl_beta=beta)
    same, same_grad = taken("grpo", batch, kl_beta=beta)
    assert torch.allclose(loss, same)
    assert torch.allclose(grad, same_grad)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(-5, 5))
def test_a_constant_added_to_all_logits_changes_nothing(seed: int, shift: float) -> None:
    probs, uniforms = drawn(seed)
    scores = MIXER.draw(probs.log(), uniforms)
    assert torch.allclose(MIXER.draw(probs.log() + shift, uniforms), scores)
    assert torch.allclose(MIXER.logp(probs.log() + shift, scores), MIXER.logp(probs.log(), scores))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_gradient_goes_through_kept_candidates_within_the_clamp(seed: int) -> None:
    probs, uniforms = drawn(seed)
    logits = (2 * probs.log() + 1).requires_grad_()
    scores = MIXER.draw(probs.log(), uniforms)
    (grad,) = torch.autograd.grad(MIXER.logp(logits, scores).sum(), logits)
    # Only differences between logits matter.
    assert torch.allclose(grad.sum(-1), torch.zeros_like(grad.sum(-1)), atol=1e-9)
    log_probs = (logits.softmax(-1) + 1e-6).log()
    noise = scores - log_probs
    stopped = ((noise <= CLAMP[0]) | (noise >= CLAMP[1]) | (log_probs <= -3)).all(-1)
    assert not grad[stopped].any()


def test_a_candidate_below_the_cut_is_left_out_of_the_mean() -> None:
    log_probs = torch.tensor([[0.9, 0.07, 0.03]], dtype=torch.float64).log()
    perturbed = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    both = density(log_probs[:, :2], perturbed[:, :2], noise_clamp=CLAMP, log_prob_cut=-3.0)
    assert torch.equal(density(log_probs, perturbed, noise_clamp=CLAMP, log_prob_cut=-3.0), both)
    # Nothing kept: no density, and no division by zero.
    assert float(density(log_probs, perturbed, noise_clamp=CLAMP, log_prob_cut=0.0)) == 0


def test_a_clamp_that_holds_nothing_is_refused() -> None:
    with pytest.raises(MethodError, match="lower < upper"):
        registry.method("soft-grpo", noise_clamp=(3.0, -1.5))


# drawn and scored -------------------------------------------------------------------------------------------------------


def soft_rollouts(policy: CausalLM, *, way: Any = None, slots: int = 64, count: int = 6) -> list[Rollout]:
    engine = NativeEngine(policy, slots=slots)
    if way is not None:
        vars(engine)["kind"] = way
    prompts = [prompt_of(policy, text) for text in ("1 + 1 =", "a longer one, is it?")]
    # Soft until the heaviest token is one of those of "a"; every other rollout is discrete.
    mixer = Mixer(3, policy.renderer.encode("a"), gumbel_temperature=0.4)
    requests = [
        replace(request_of(prompts[i % 2], seed=i, count=9), mixer=mixer if i % 3 else None) for i in range(count)
    ]
    return Runner(policy, engine, Sampling(temperature=0.8, top_p=0.97), SingleTurn(grader())).run(requests)


@pytest.mark.filterwarnings("ignore:.*does not take its attention")
@pytest.mark.parametrize("mode", ["shared", "padded", "whole"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "gpt2"])
def test_the_trainer_gives_soft_steps_the_density_that_the_engine_drew_them_with(kind: str, mode: str) -> None:
    policy = tiny_policy(kind)
    policy.__dict__["forward_mode"] = mode
    rollouts = soft_rollouts(policy)
    soft = [r.support.soft if r.support is not None else None for r in rollouts]
    assert [each is None for each in soft] == [i % 3 == 0 for i in range(6)]
    assert sum(step is not None for each in soft if each for step in each) > 10
    logp = policy.log_probs(policy.actions(rollouts), width=9, temperature=0.8)["logp"].detach()
    for row, rollout in zip(logp, rollouts, strict=True):
        drawn_ = torch.tensor(rollout.sampler_logp)
        assert float((row[: len(drawn_)] - drawn_).abs().max()) < 2e-4


@pytest.mark.parametrize("way", [FusedStep, PlainStep])
def test_steps_taken_from_the_weights_read_the_same_mixtures(way: Any) -> None:
    if way is FusedStep and not compiled():
        pytest.skip("needs gcc")
    policy = tiny_policy("qwen3")
    right = soft_rollouts(policy, way=PlainStep if way is FusedStep else None)
    for a, b in zip(soft_rollouts(policy, way=way, slots=2), right, strict=True):
        assert a.tokens == b.tokens
        assert a.sampler_logp == pytest.approx(b.sampler_logp, abs=1e-4)


def test_soft_steps_end_where_the_heaviest_tokens_say_so_and_outlive_a_checkpoint() -> None:
    policy = tiny_policy("qwen3")
    (end,) = policy.renderer.encode("a")
    for rollout in soft_rollouts(policy, count=12):
        support = rollout.support
        assert support is not None
        if support.soft is None:
            continue
        discrete = [step is None for step in support.soft]
        first = rollout.tokens.index(end) if end in rollout.tokens else len(rollout.tokens)
        assert discrete == [t > first for t in range(len(rollout.tokens))]
        again = Support.of_state(support.state())
        assert again.mixer == support.mixer
        for mine, theirs in zip(support.soft, again.soft or (), strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert mine.ids.tolist() == theirs.ids.tolist()
                assert mine.scores.tolist() == theirs.scores.tolist()


def test_a_rollout_of_soft_steps_is_not_continued() -> None:
    policy = tiny_policy("qwen3")
    rollout = soft_rollouts(policy)[1]
    with pytest.raises(UsageError, match="soft steps"):
        list(NativeEngine(policy).generate(rollout.branches(3, [1]), Sampling()))
