"""A temperature that follows the entropy of every next token: where it is asked for, and nowhere else."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest
import torch

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.signals.entropy import EntropyScale, EntropyTemperature, entropy_temperature
from tests.helpers import prompt_of, request_of, tiny_policy

ADAPTIVE = EntropyTemperature(0.6, 0.3, 0.8, 0.7, -1.5)


def draw(policy: CausalLM, requests: list, sampling: Sampling) -> list[Completion]:
    done = dict(NativeEngine(policy).generate(requests, sampling))
    return [done[i] for i in range(len(requests))]


def some_requests(policy: CausalLM) -> list:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a longer question?")]
    return [request_of(prompt, seed=10 * k + i, count=10) for k in range(5) for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logp_is_the_trainers_and_sampled_logp_that_of_the_temperature_of_each_step(temperature: float) -> None:
    policy = tiny_policy()
    requests = [replace(r, processor=ADAPTIVE) for r in some_requests(policy)]
    done = draw(policy, requests, Sampling(temperature=temperature))
    sequences = Sequences(tuple(torch.tensor(r.context) for r in requests), tuple(torch.tensor(c.tokens) for c in done))
    want = frozenset({"logp", "entropy", "logits"})
    with torch.no_grad():
        scored = policy.log_probs(sequences, width=10, temperature=temperature, want=want)
    tau, *scale = astuple(ADAPTIVE)
    own = entropy_temperature(scored["entropy"], EntropyScale(*scale), base=temperature, tau=tau)
    heated = (scored["logits"] * temperature / own[..., None]).log_softmax(-1)
    moved = 0
    for i, completion in enumerate(done):
        count = len(completion.tokens)
        tokens = torch.tensor(completion.tokens)
        assert torch.allclose(torch.tensor(completion.logp), scored["logp"][i, :count], atol=1e-4)
        assert torch.allclose(torch.tensor(completion.entropy), scored["entropy"][i, :count], atol=1e-4)
        expected = heated[i, :count].gather(1, tokens[:, None])[:, 0]
        assert torch.allclose(torch.tensor(completion.sampled_logp), expected, atol=1e-4)
        moved += int((expected - scored["logp"][i, :count]).abs().gt(1e-2).sum())
    assert moved > 20


def test_requests_without_it_are_drawn_as_ever_whatever_is_beside_them() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    for sampling in (Sampling(temperature=0.8), Sampling(top_p=0.9), Sampling(temperature=0.0)):
        plain = draw(policy, requests, sampling)
        mixed = draw(policy, [replace(r, processor=ADAPTIVE) if i % 2 else r for i, r in enumerate(requests)], sampling)
        assert [c.tokens for c in mixed[::2]] == [c.tokens for c in plain[::2]]
        for a, b in zip(mixed[::2], plain[::2], strict=True):
            assert a.sampled_logp == pytest.approx(b.sampled_logp, abs=1e-5)
        if sampling.temperature:
            assert [c.tokens for c in mixed[1::2]] != [c.tokens for c in plain[1::2]]


def test_a_tau_of_zero_changes_nothing() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    still = [replace(r, processor=replace(ADAPTIVE, tau=0.0)) for r in requests]
    assert [c.tokens for c in draw(policy, still, Sampling())] == [c.tokens for c in draw(policy, requests, Sampling())]


def test_tokens_come_as_often_as_they_are_likely_at_their_temperature() -> None:
    policy = tiny_policy()
    prompt = prompt_of(policy, "?")
    requests = [replace(request_of(prompt, seed=i, count=1), processor=ADAPTIVE) for i in range(3000)]
    done = dict(NativeEngine(policy, slots=3000).generate(requests, Sampling(temperature=0.8)))
    drawn = torch.tensor([done[i].tokens[0] for i in range(3000)])
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1]
    base = (logits / 0.8).log_softmax(-1)
    tau, *scale = astuple(ADAPTIVE)
    own = entropy_temperature(-(base.exp() * base).sum(), EntropyScale(*scale), base=0.8, tau=tau)
    assert abs(float(own) - 0.8) > 0.1
    expected = (logits / own).softmax(-1).double() * 3000
    counts = torch.bincount(drawn, minlength=len(expected)).double()
    likely = expected >= 5
    chi2 = float(((counts - expected)[likely] ** 2 / expected[likely]).sum())
    assert chi2 < 1.3 * int(likely.sum()) + 30
