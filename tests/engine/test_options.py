"""The options of sampling: each does what it says, both decoders agree, and what else is in the batch does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.cached import CachedDecoder
from cohort.engine.native.engine import NativeEngine
from cohort.engine.stopping import StopStrings, first_stop
from cohort.engine.truncation import allowed
from cohort.policies.causal_lm import CausalLM
from cohort.signals.entropy import EntropyTemperature
from cohort.types import Request
from cohort.types.support import excluded
from tests.helpers import prompt_of, request_of, tiny_policy

STOPS = ("7", "ab", "q")
EVERYTHING = Sampling(
    temperature=0.8, top_p=0.9, top_k=40, min_p=0.02, min_new_tokens=4, stop=STOPS, logit_bias={10: 1.5, 30: -100.0}
)


def draw(policy: CausalLM, requests: Sequence[Request], sampling: Sampling, slots: int = 64) -> list[Completion]:
    done = dict(NativeEngine(policy, slots=slots).generate(requests, sampling))
    return [done[i] for i in range(len(requests))]


def some_requests(policy: CausalLM, count: int = 14) -> list[Request]:
    """Of three prompts of unequal length, some with a prefix."""
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a much longer question, is it?", "x")]
    return [
        request_of(prompts[i % 3], seed=i, count=count - i % 4, prefix=(9, 8) if i % 5 == 2 else ()) for i in range(15)
    ]


def same(a: Completion, b: Completion) -> bool:
    numbers = ("logp", "sampled_logp", "entropy")
    assert all(getattr(a, name) == pytest.approx(getattr(b, name), abs=2e-5) for name in numbers)
    assert (a.candidates is None) == (b.candidates is None)
    assert all(np.array_equal(x, y) for x, y in zip(a.candidates or [], b.candidates or [], strict=True))
    return (a.tokens, a.finished, a.stop) == (b.tokens, b.finished, b.stop)


def logits_of(policy: CausalLM, request: Request, done: Completion) -> torch.Tensor:
    """[L, V] float64 logits before each drawn token, from a plain forward pass."""
    context = [*request.context, *request.prefix]
    with torch.no_grad():
        return (
            policy.model(input_ids=torch.tensor([[*context, *done.tokens]])).logits[0, len(context) - 1 : -1].double()
        )


@pytest.mark.parametrize(
    "sampling",
    [
        EVERYTHING,
        Sampling(temperature=0.6, top_p=0.8),
        Sampling(min_p=0.3),
        Sampling(stop=STOPS),
        Sampling(min_new_tokens=9, stop_ids=frozenset(range(40))),
        replace(EVERYTHING, temperature=0.0),
    ],
)
def test_a_request_draws_the_same_tokens_whatever_is_beside_it(sampling: Sampling) -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    together = draw(policy, requests, sampling)
    assert all(same(*pair) for pair in zip(draw(policy, requests, sampling, slots=4), together, strict=True))
    backwards = draw(policy, requests[::-1], sampling)[::-1]
    assert all(same(*pair) for pair in zip(backwards, together, strict=True))
    assert same(draw(policy, [requests[7]], sampling)[0], together[7])


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_both_decoders_agree(kind: str) -> None:
    policy = tiny_policy(kind)
    requests = some_requests(policy)
    requests[3] = replace(requests[3], processor=EntropyTemperature(0.6, 0.3, 0.8, 0.7, -1.5))
    own = dict(CachedDecoder(policy, requests, EVERYTHING, slots=64).run())
    got = draw(policy, requests, EVERYTHING, slots=5)
    assert all(same(got[i], own[i]) for i in range(len(requests)))
    assert got[3].policy_logp == pytest.approx(own[3].policy_logp, abs=2e-5)


def test_what_is_reported_is_what_was_drawn_from() -> None:
    """Kept sets and all log-probabilities, against the plain definition in float64."""
    policy = tiny_policy()
    requests = some_requests(policy)
    sampling = replace(EVERYTHING, stop=(), stop_ids=frozenset({11, 12}))
    sizes = []
    for request, done in zip(requests, draw(policy, requests, sampling), strict=True):
        logits = logits_of(policy, request, done)
        at = torch.tensor(done.tokens)[:, None]
        raw = (logits / 0.8).log_softmax(-1)
        assert torch.allclose(torch.tensor(done.logp).double(), raw.gather(1, at)[:, 0], atol=1e-5)
        for token, value in sampling.logit_bias.items():
            logits[:, token] += value
        for i in range(len(done.tokens)):
            if len(request.prefix) + i < 4:
                logits[i, [11, 12]] = -torch.inf
        policy_logp = (logits / 0.8).log_softmax(-1)
        assert done.candidates is not None
        candidates = ~excluded(done.candidates, 102)
        assert torch.equal(candidates, allowed(policy_logp, sampling))
        drawn_from = policy_logp.masked_fill(~candidates, -torch.inf).log_softmax(-1)
        assert torch.allclose(torch.tensor(done.sampled_logp).double(), drawn_from.gather(1, at)[:, 0], atol=1e-5)
        entropy = -torch.special.xlogy(drawn_from.exp(), drawn_from.exp()).sum(-1)
        assert torch.allclose(torch.tensor(done.entropy).double(), -entropy.neg(), atol=1e-5)
        sizes += candidates.sum(1).tolist()
    assert 1 < min(sizes) < max(sizes) <= 40
    free = draw(policy, requests, Sampling())
    assert all(c.candidates is None and c.policy_logp is None and c.sampled_logp == c.logp for c in free)


def test_nothing_ends_a_completion_before_its_minimum() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    ends = frozenset(range(5, 60))
    for sampling in (Sampling(stop_ids=ends), Sampling(stop=tuple("0123456789abcdefghijklmnopqrstuvwxyz"))):
        plain = draw(policy, requests, sampling)
        early = [
            done.finished and len(r.prefix) + len(done.tokens) <= 6 for r, done in zip(requests, plain, strict=True)
        ]
        assert sum(early) > 7
        late = draw(policy, requests, replace(sampling, min_new_tokens=6))
        for request, done in zip(requests, late, strict=True):
            assert len(request.prefix) + len(done.tokens) > 6
            if sampling.stop_ids:
                assert not ends & set(done.tokens[:-1])
        assert sum(done.finished for done in late) > 7
    greedy = draw(policy, requests, Sampling(temperature=0.0, stop_ids=ends, min_new_tokens=6))
    assert all(len(r.prefix) + len(done.tokens) > 6 for r, done in zip(requests, greedy, strict=True))


def test_a_bias_makes_tokens_likely_or_impossible() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    assert all(set(done.tokens) == {20} for done in draw(policy, requests, Sampling(logit_bias={20: 100.0})))
    seen = {token for done in draw(policy, requests, Sampling()) for token in done.tokens}
    barred = dict.fromkeys(sorted(seen)[:20], -100.0)
    again = {token for done in draw(policy, requests, Sampling(logit_bias=barred)) for token in done.tokens}
    assert not again & set(barred)


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it() -> None:
    policy = tiny_policy()
    requests = some_requests(policy)
    free = draw(policy, requests, Sampling(stop_ids=frozenset()))
    # Two characters of the first completion, which are two tokens of the character tokenizer.
    stop = policy.renderer.decode(free[0].tokens[4:6])
    assert len(stop) == 2
    for a, b in zip(free, draw(policy, requests, Sampling(stop_ids=frozenset(), stop=(stop, "~~~"))), strict=True):
        assert b.tokens == a.tokens[: len(b.tokens)]
        at = next((n for n in range(1, len(a.tokens) + 1) if stop in policy.renderer.decode(a.tokens[:n])), None)
        assert len(b.tokens) == (len(a.tokens) if at is None else at)
        assert (b.finished, b.stop) == ((False, None) if at is None else (True, stop))
    assert any(done.stop for done in draw(policy, requests, Sampling(stop_ids=frozenset(), stop=(stop,))))


class Words:
    """A tokenizer whose tokens are pieces of text, or of characters."""

    special_ids = frozenset({0})

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = (b"", *pieces)

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        # across tokens, and inside of one
        ([b"Us", b"er", b": hi"], ["User:"], (3, "User:")),
        ([b"a", b"b\n\nQ: c", b"d"], ["\n\n"], (2, "\n\n")),
        # of several, the first in the text
        ([b"xx", b"ab cd"], ["cd", "b "], (2, "b ")),
        # a character of several bytes, one a token
        ([b"\xc3", b"\xa9", b"x"], ["\u00e9"], (2, "\u00e9")),
        ([b"a", b"\xe2", b"\x82", b"\xac", b"x"], ["a\u20ac"], (4, "a\u20ac")),
        ([b"a", b"b"], ["c"], None),
    ],
)
def test_stop_strings_are_found_as_they_are_completed(pieces: Any, stops: list[str], expected: Any) -> None:
    words = Words(*pieces)
    strings = StopStrings(words, stops, 1)
    ended = None
    for i in range(len(pieces)):
        # A special token between any two stands for no text.
        assert not strings.add(0, 0, True)
        if strings.add(0, i + 1, True):
            ended = (i + 1, strings.found[0])
            break
    assert ended == expected


def test_a_stop_string_that_came_too_early_is_not_found_later() -> None:
    words = Words(b"ab", b"c", b"ab")
    strings = StopStrings(words, ["ab"], 1)
    assert [strings.add(0, token, late) for token, late in ((1, False), (2, True), (3, True))] == [False, False, True]
    assert first_stop("abcab", "abc", ["ab"]) == (3, "ab")


def test_rollouts_stream_out_as_they_finish() -> None:
    policy = tiny_policy()
    assert policy.forward_mode == "shared"
    short, long = (request_of(prompt_of(policy, "1+1="), seed=i, count=n) for i, n in ((0, 2), (1, 40)))
    sampling = Sampling(stop_ids=frozenset())
    for mode in ("shared", "padded"):
        policy.__dict__["forward_mode"] = mode
        calls: list[int] = []
        engine = NativeEngine(policy)
        vars(engine)["kind"] = None
        # Every pass through the model's modules asks once for its rotations.
        hook = policy.base.get_decoder().rotary_emb.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        stream = engine.generate([long, short], sampling)
        place, done = next(iter(stream))
        assert (place, len(done.tokens)) == (1, 2)
        # The long one has not been decoded to its end by then.
        assert len(calls) <= 3
        assert [place for place, _ in stream] == [0]
        assert len(calls) >= 40
        hook.remove()
