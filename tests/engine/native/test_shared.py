"""Decoding over shared prefixes gives the tokens of decoding with transformers' own cache, whatever shares a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cohort.engine.base import Sampling
from cohort.engine.native import shared
from cohort.engine.native.cached import CachedDecoder
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.fused import FusedStep
from cohort.engine.native.plain import PlainStep
from cohort.engine.native.prefixes import Prefixes
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request
from tests.helpers import compiled, prompt_of, request_of, tiny_policy

KINDS = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "phi3", "gpt2")
LIKE_LLAMA = ("llama", "qwen2", "qwen3", "mistral")
BEST: shared.Kind = FusedStep if compiled() else PlainStep


def orders(policy: CausalLM) -> list[Request]:
    """Requests of five prompts of unequal length and number, for rollouts of unequal length, some with a prefix."""
    prompts = [prompt_of(policy, text) for text in ("ab", "hello there you", "x", "12+34=", "what is it")]
    return [
        request_of(prompts[i % 5], seed=i, count=3 + (i * 5) % 17, prefix=(9, 8) if i % 7 == 3 else ())
        for i in range(16)
    ]


def engine_of(policy: CausalLM, slots: int, kind: shared.Kind | None = None) -> NativeEngine:
    """An engine that is told how to take its steps."""
    engine = NativeEngine(policy, slots=slots)
    vars(engine)["kind"] = kind
    return engine


@pytest.mark.parametrize("few", [0, shared.FEW_TOKENS], ids=["shared", "parted"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_log_probabilities_agree(kind: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "FEW_TOKENS", few)
    policy = tiny_policy(kind)
    assert policy.forward_mode == "shared"
    assert NativeEngine(policy).kind is (BEST if kind in LIKE_LLAMA else None)
    requests, sampling = orders(policy), Sampling(temperature=0.8, top_p=0.95)
    own = dict(CachedDecoder(policy, requests, sampling, slots=64).run())
    ways = [(64, None), (3, None)]
    if kind in LIKE_LLAMA:
        ways += [(slots, each) for each in {BEST, PlainStep} for slots in (64, 3)]
    for slots, way in ways:
        got = dict(engine_of(policy, slots, way).generate(requests, sampling))
        assert sorted(got) == sorted(own) == list(range(16))
        for place, completion in own.items():
            assert got[place].tokens == completion.tokens
            assert got[place].finished == completion.finished
            for name in ("logp", "sampled_logp", "entropy"):
                assert getattr(got[place], name) == pytest.approx(getattr(completion, name), abs=2e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_rows_draw_the_same_with_contexts_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(kind)
    requests, sampling = orders(policy), Sampling(temperature=0.8)
    parted: list[int] = []
    part = shared.SharedDecoder._part

    def counted(self: shared.SharedDecoder) -> None:
        parted.append(len(self.owner))
        part(self)

    monkeypatch.setattr(shared.SharedDecoder, "_part", counted)
    drawn = {}
    for few, expected in ((0, 0), (30, 1), (10**6, 1)):
        monkeypatch.setattr(shared, "FEW_TOKENS", few)
        engine = engine_of(policy, 64, PlainStep if kind in LIKE_LLAMA else None)
        parted.clear()
        drawn[few] = {i: c.tokens for i, c in engine.generate(requests, sampling)}
        assert len(parted) == expected
    assert drawn[0] == drawn[30] == drawn[10**6]


def test_waiting_rollouts_take_the_places_of_finished_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("qwen3")
    busy: list[int] = []
    engine = engine_of(policy, 4)
    forward = shared.SharedDecoder._forward
    monkeypatch.setattr(shared.SharedDecoder, "_forward", lambda self: busy.append(len(self.owner)) or forward(self))
    requests = orders(policy)
    done = dict(engine.generate(requests, Sampling()))
    assert max(busy) == 4
    # One step a token but the first, which comes with the context; more rows a step, fewer steps.
    assert sum(busy) == sum(len(c.tokens) - 1 for c in done.values())


def test_a_context_is_encoded_once_and_dropped_with_its_last_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("qwen3")
    encoded: list[tuple[int, ...]] = []
    engine = engine_of(policy, 2)
    add, held = Prefixes.add, []

    def counted(self: Prefixes, contexts: Sequence[tuple[int, ...]], *others: Any) -> None:
        encoded.extend(contexts)
        add(self, contexts, *others)
        held.append(len(self.contexts))

    monkeypatch.setattr(Prefixes, "add", counted)
    requests = orders(policy)
    list(engine.generate(requests, Sampling()))
    # Where several go on from a prefix, it is shared; where one does, its context is.
    whole = [(*r.context, *r.prefix) for r in requests]
    contexts = {key if whole.count(key) > 1 else r.context.tokens for r, key in zip(requests, whole, strict=True)}
    assert sorted(encoded) == sorted(contexts)
    assert max(held) <= 3


def test_a_model_that_cannot_share_is_decoded_with_its_own_cache() -> None:
    policy = tiny_policy("llama")
    vars(policy)["forward_mode"] = "whole"
    requests = orders(policy)
    own = dict(CachedDecoder(policy, requests, Sampling(), slots=8).run())
    got = dict(NativeEngine(policy, slots=8).generate(requests, Sampling()))
    assert {i: c.tokens for i, c in got.items()} == {i: c.tokens for i, c in own.items()}


def test_nothing_asked_for_gives_nothing() -> None:
    assert list(NativeEngine(tiny_policy("llama")).generate([], Sampling())) == []
