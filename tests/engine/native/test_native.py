"""The embedded engine: what it reports, what it shares, what it repeats."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.types import Request
from tests.helpers import prompt_of, request_of, tiny_policy

# "Llama-, Qwen2-, Qwen3-, Gemma- and GPT-2-type", and the kinds whose attention slides.
KINDS = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "mistral", "phi3")


def draw(policy: CausalLM, requests: Sequence[Request], sampling: Sampling, slots: int = 128) -> list[Completion]:
    done = dict(NativeEngine(policy, slots=slots).generate(requests, sampling))
    assert sorted(done) == list(range(len(requests)))
    return [done[i] for i in range(len(requests))]


def some_requests(policy: CausalLM, count: int = 12) -> list[Request]:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a much longer question, is it?", "x")]
    return [request_of(prompt, seed=10 * p + k, count=count) for k in range(4) for p, prompt in enumerate(prompts)]


@pytest.mark.parametrize("kind", KINDS)
def test_reported_log_probabilities_are_the_trainers(kind: str) -> None:
    policy = tiny_policy(kind)
    requests = some_requests(policy)
    for temperature in (1.0, 0.6):
        done = draw(policy, requests, Sampling(temperature=temperature), slots=5)
        sequences = Sequences(
            tuple(torch.tensor(r.context) for r in requests), tuple(torch.tensor(c.tokens) for c in done)
        )
        with torch.no_grad():
            scored = policy.log_probs(sequences, width=12, temperature=temperature, want=frozenset({"logp", "entropy"}))
        for i, completion in enumerate(done):
            count = len(completion.tokens)
            assert torch.allclose(torch.tensor(completion.logp), scored["logp"][i, :count], atol=1e-4)
            assert torch.allclose(torch.tensor(completion.entropy), scored["entropy"][i, :count], atol=1e-4)
            assert completion.sampled_logp == completion.logp


def test_a_request_draws_the_same_tokens_whatever_is_beside_it() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    together = draw(policy, requests, Sampling())
    for slots in (1, 3):
        assert [c.tokens for c in draw(policy, requests, Sampling(), slots=slots)] == [c.tokens for c in together]
    alone = draw(policy, [requests[5]], Sampling())
    assert alone[0].tokens == together[5].tokens
    assert len({tuple(c.tokens) for c in together}) > 6


def test_a_rollout_continues_from_any_of_its_prefixes() -> None:
    """Greedily, the tokens after a prefix are those that were drawn after it the first time."""
    policy = tiny_policy("llama")
    prompt = prompt_of(policy, "12 - 7 =")
    whole = draw(policy, [request_of(prompt, count=10)], Sampling(temperature=0.0))[0]
    cuts = range(1, len(whole.tokens))
    prefixed = [request_of(prompt, count=10 - cut, prefix=tuple(whole.tokens[:cut])) for cut in cuts]
    for cut, rest in zip(cuts, draw(policy, prefixed, Sampling(temperature=0.0)), strict=True):
        assert rest.tokens == whole.tokens[cut:]
        assert torch.allclose(torch.tensor(rest.logp), torch.tensor(whole.logp[cut:]), atol=1e-4)


def test_rollouts_end_at_a_stop_token_or_at_the_limit() -> None:
    policy = tiny_policy()
    requests = some_requests(policy, count=6)
    free = draw(policy, requests, Sampling(stop_ids=frozenset()))
    assert all(len(c.tokens) == 6 and not c.finished for c in free)
    stop = free[0].tokens[2]
    stopped = draw(policy, requests, Sampling(stop_ids=frozenset({stop})))
    for a, b in zip(free, stopped, strict=True):
        if stop in a.tokens:
            assert b.tokens == a.tokens[: a.tokens.index(stop) + 1]
            assert b.finished
        else:
            assert b.tokens == a.tokens
    assert stopped[0].finished


def test_greedy_takes_the_most_likely_token() -> None:
    policy = tiny_policy()
    request = some_requests(policy)[0]
    done = draw(policy, [request], Sampling(temperature=0.0))[0]
    ids = torch.tensor([[*request.context, *done.tokens]])
    logits = policy.model(input_ids=ids).logits[0, len(request.context) - 1 : -1]
    assert logits.argmax(-1).tolist() == done.tokens


def test_tokens_come_as_often_as_they_are_likely() -> None:
    policy = tiny_policy()
    prompt = prompt_of(policy, "?")
    requests = [request_of(prompt, seed=i, count=1) for i in range(3000)]
    drawn = torch.tensor([c.tokens[0] for c in draw(policy, requests, Sampling(temperature=0.8), slots=3000)])
    with torch.no_grad():
        probs = (policy.model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1] / 0.8).softmax(-1)
    counts = torch.bincount(drawn, minlength=len(probs)).double()
    expected = probs.double() * len(drawn)
    likely = expected >= 5
    chi2 = float(((counts - expected)[likely] ** 2 / expected[likely]).sum())
    # 99.9 % quantile of chi-square for up to 60 degrees of freedom is below 100.
    assert chi2 < 1.3 * int(likely.sum()) + 30


def test_a_layer_that_something_else_has_taken_over_stays_with_it() -> None:
    policy = tiny_policy()
    layer = policy.base.get_decoder().layers[0].mlp.down_proj
    calls, plain = [], layer.forward
    layer.forward = taken_over = lambda x: calls.append(1) or plain(x)
    list(
        NativeEngine(policy).generate([request_of(prompt_of(policy, "1+1="), count=4)], Sampling(stop_ids=frozenset()))
    )
    assert len(calls) >= 4
    assert layer.forward is taken_over
