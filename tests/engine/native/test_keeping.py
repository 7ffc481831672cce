"""What an episode's earlier turns have computed is kept, and whether it was makes no difference to what is drawn."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.base import Completion, Sampling
from cohort.engine.native import keys
from cohort.engine.native.budget import token_bytes
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.graphs import Graphs
from cohort.engine.native.keys import plan
from cohort.engine.native.plain import PlainStep
from cohort.policies.causal_lm import CausalLM
from cohort.types import Context, Request
from tests.engine.native.test_graphs import Recorder
from tests.engine.native.test_shared import BEST, engine_of
from tests.helpers import compiled, prompt_of, request_of, tiny_policy

POLICIES = {kind: tiny_policy(kind) for kind in ("qwen3", "mistral", "gemma2", "gpt2")}
NEVER = Sampling(stop_ids=frozenset())


def numbers(completion: Completion) -> tuple[Any, ...]:
    return completion.tokens, completion.logp, completion.sampled_logp, completion.entropy


def talk(
    engine: NativeEngine, policy: CausalLM, *, episodes: int = 4, turns: int = 4, count: int = 7
) -> tuple[list[Request], dict[int, Completion], int]:
    """Episodes of two prompts, each of several turns of `count` tokens and answers of five: (requests, completions by number,
    tokens that were encoded)."""
    prompts = [prompt_of(policy, text) for text in ("a longer prompt that is shared", "and another one, as long")]
    session = engine.session(NEVER)
    requests: list[Request] = []
    found: dict[int, Completion] = {}
    of: dict[int, tuple[int, int]] = {}

    def submit(episode: int, turn: int, history: tuple[int, ...]) -> None:
        request = request_of(prompts[episode % 2], seed=100 * episode + turn, count=count, prefix=history)
        requests.append(request)
        of[session.submit(request)] = (episode, turn)

    for episode in range(episodes):
        submit(episode, 0, ())
    while session.waiting:
        number, found[number] = session.next()
        episode, turn = of[number]
        if turn + 1 == turns:
            session.forget(number)
            continue
        rng = random.Random(100 * episode + turn)
        answer = [rng.randrange(5, 50) for _ in range(5)]
        submit(episode, turn + 1, (*requests[number].prefix, *found[number].tokens, *answer))
    encoded = session.encoded
    assert session.decoder is None or not session.decoder.kept.contexts
    session.close()
    return requests, found, encoded


@pytest.mark.parametrize(
    ("kind", "way"),
    [("qwen3", BEST), ("mistral", BEST), ("qwen3", PlainStep), ("qwen3", None), ("gemma2", None), ("gpt2", None)],
)
def test_a_turn_reads_what_was_said_since_the_last_one_and_draws_what_it_would_have(kind: str, way: Any) -> None:
    policy = POLICIES[kind]
    requests, found, encoded = talk(engine_of(policy, 64, way), policy)
    contexts = {r.context.tokens for r in requests}
    # Of a turn its last token, which nothing was drawn after, and the answer.
    assert encoded == sum(map(len, contexts)) + 4 * 3 * (1 + 5)
    for number, request in enumerate(requests):
        ((_, alone),) = engine_of(policy, 64, way).generate([request], NEVER)
        if compiled() and way is BEST:
            assert numbers(found[number]) == numbers(alone)
        assert found[number].tokens == alone.tokens
        assert found[number].sampled_logp == pytest.approx(alone.sampled_logp, abs=1e-4)


def test_steps_of_fixed_shape_keep_turns_too() -> None:
    policy = POLICIES["qwen3"]
    engine = engine_of(policy, 64)
    engine.graphs = Graphs(Recorder())
    requests, found, encoded = talk(engine, policy)
    assert encoded == sum(map(len, {r.context.tokens for r in requests})) + 4 * 3 * (1 + 5)
    expected = talk(engine_of(policy, 64), policy)[1]
    assert {i: c.tokens for i, c in found.items()} == {i: c.tokens for i, c in expected.items()}


def test_turns_that_memory_has_no_room_for_are_read_again_and_draw_the_same() -> None:
    policy = POLICIES["qwen3"]
    _, right, least = talk(engine_of(policy, 64, BEST), policy)
    _, found, encoded = talk(engine_of(policy, 1, BEST), policy)
    assert encoded > least
    # In another order: the seeds say which is which.
    assert sorted(map(numbers, found.values())) == sorted(map(numbers, right.values())) or not compiled()
    bound = NativeEngine(policy, cache_mb=150 * token_bytes(policy) / 1e6)
    vars(bound)["kind"] = BEST
    _, found, encoded = talk(bound, policy)
    assert encoded > least
    assert sorted(map(numbers, found.values())) == sorted(map(numbers, right.values())) or not compiled()


def test_contexts_that_begin_alike_are_read_once_as_far_as_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = POLICIES["qwen3"]
    rng = random.Random(1)
    path = tuple(rng.randrange(5, 50) for _ in range(60))
    prompt = prompt_of(policy, "a longer prompt that is shared")
    # Nested beginnings, and two branches off one of them.
    prefixes = [path[:20], path[:40], path, (*path[:30], *path[:9]), (*path[:30], *path[5:14])]
    requests = [request_of(prompt, seed=i, count=4, prefix=p) for i, p in enumerate(prefixes) for _ in range(2)]
    requests += [request_of(prompt, seed=9, count=4, prefix=path[:10])]
    session = engine_of(policy, 64, BEST).session(NEVER)
    for request in requests:
        session.submit(request)
    found = dict(session.next() for _ in requests)
    # The prompt, the path, the branches behind their place, and again the last token of each beginning of another.
    assert session.encoded == len(prompt.tokens) + 60 + 9 + 9 + 4
    monkeypatch.setattr(keys, "LEAST", 10**6)
    for i, completion in dict(engine_of(policy, 64, BEST).generate(requests, NEVER)).items():
        assert found[i].tokens == completion.tokens
        assert numbers(found[i]) == numbers(completion) or not compiled()


def test_a_turn_whose_context_was_rebuilt_is_drawn_behind_that() -> None:
    policy = POLICIES["qwen3"]
    said, other = tuple(range(10, 40)), prompt_of(policy, "the conversation told anew")
    asked = request_of(prompt_of(policy, "a longer prompt that is shared"), seed=1, count=6, prefix=said)
    anew = replace(asked.context, rebuilt=((20, Context(other.tokens)),))
    ((_, found),) = engine_of(policy, 64, BEST).generate([replace(asked, context=anew)], NEVER)
    alone = request_of(other, seed=1, count=6, prefix=said[20:])
    ((_, right),) = engine_of(policy, 64, BEST).generate([alone], NEVER)
    assert numbers(found) == numbers(right)


@settings(max_examples=30, deadline=None)
@given(
    wanted=st.lists(
        st.lists(st.integers(0, 1), min_size=1, max_size=30).map(tuple), min_size=1, max_size=6, unique=True
    ),
    held=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30).map(tuple), max_size=4, unique=True),
)
def test_what_is_known_is_a_beginning_that_is_there_by_then(
    wanted: list[tuple[int, ...]], held: list[tuple[int, ...]]
) -> None:
    found = plan(wanted, held)
    for i, (source, count, wave) in enumerate(found):
        if source is None:
            assert (count, wave) == (0, 0)
            continue
        other = held[source] if source < len(held) else wanted[source - len(held)]
        assert wanted[i][:count] == other[:count]
        assert count < len(wanted[i])
        assert wave == 0 if source < len(held) else wave > found[source - len(held)].wave
        # No other has more.
        assert all(w[: count + 1] != wanted[i][: count + 1] or count + 1 == len(wanted[i]) for w in held)


def test_many_rollouts_of_one_prompt_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can follow, nothing is copied."""
    policy = POLICIES["qwen3"]
    kept: list[int] = []
    monkeypatch.setattr("cohort.engine.native.keeping.Kept.add", lambda *args: kept.append(1))
    requests = [request_of(prompt_of(policy, "1 + 1 ="), seed=i, count=5) for i in range(4)]
    list(NativeEngine(policy).generate(requests, Sampling()))
    assert not kept
