"""An engine with weights of its own: it takes over others when it is told to, and can be told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort.engine import detached
from cohort.engine.base import Completion, Sampling
from cohort.engine.detached import Detached, GivenUp
from cohort.engine.native.engine import NativeEngine, NativeSession
from cohort.policies.causal_lm import CausalLM
from cohort.policies.passes import log_probs
from cohort.policies.replica import replica, take_over, weights_of
from cohort.types import Context, Request, Rollout, Segment
from tests.helpers import prompt_of, tiny_policy


@pytest.fixture
def policy() -> CausalLM:
    return tiny_policy()


def requests(policy: CausalLM, count: int, tokens: int) -> list[Request]:
    prompt = prompt_of(policy, "ab")
    return [Request(prompt, Context(prompt.tokens), seed, tokens) for seed in range(count)]


def other(policy: CausalLM) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [weight + 0.3 * torch.randn_like(weight) for weight in weights_of(policy)]


# No token ends a rollout.
ON = Sampling(stop_ids=frozenset())


def test_a_replica_draws_the_same_and_moves_by_itself(policy: CausalLM) -> None:
    policy.add_lora(2)
    copied = replica(policy)
    asked = requests(policy, 3, 6)
    drawn = [dict(NativeEngine(each).generate(asked, ON)) for each in (policy, copied)]
    assert drawn[0] == drawn[1]
    before = weights_of(policy)
    take_over(copied, other(policy))
    assert all(torch.equal(mine, held) for mine, held in zip(weights_of(policy), before, strict=True))
    assert dict(NativeEngine(copied).generate(asked, ON)) != drawn[0]
    # What is not trained is there once.
    frozen = [{p.data_ptr() for p in each.model.parameters() if not p.requires_grad} for each in (policy, copied)]
    assert frozen[0] == frozen[1]
    assert copied.renderer.tokenizer is not policy.renderer.tokenizer


def test_it_draws_with_what_it_was_given_whatever_the_trainer_does(policy: CausalLM) -> None:
    engine, asked = Detached(NativeEngine(copied := replica(policy)), copied), requests(policy, 3, 6)
    first = dict(engine.generate(asked, ON))
    take_over(policy, other(policy))
    engine.sync()
    assert dict(engine.generate(asked, ON)) == first
    engine.take_over(1, weights_of(policy))
    assert dict(engine.generate(asked, ON)) == dict(NativeEngine(policy).generate(asked, ON)) != first


def test_what_is_drawn_is_given_up_at_the_next_token(policy: CausalLM) -> None:
    engine = Detached(NativeEngine(copied := replica(policy)), copied)
    session = engine.session(ON)
    for request in requests(policy, 2, 100):
        session.submit(request)
    looked: list[int] = []

    def stop() -> bool:
        looked.append(1)
        if len(looked) == 3:
            engine.stopped.set()
        return False

    with pytest.raises(GivenUp):
        session.next_unless(stop)
    assert len(looked) <= 4
    for call in (session.next, lambda: session.submit(requests(policy, 1, 2)[0]), lambda: session.next_unless(stop)):
        with pytest.raises(GivenUp):
            call()
    session.close()


def test_nothing_goes_on_from_what_another_thread_draws(policy: CausalLM) -> None:
    engine = Detached(NativeEngine(copied := replica(policy)), copied)
    done: list[Any] = []
    with engine.drawing:
        thread = threading.Thread(target=lambda: done.append(engine.not_taken_over()))
        thread.start()
        thread.join(0.1)
        assert not done
    thread.join(5)
    assert done == [[]]
    assert engine.metrics() == {}


def test_rollouts_in_flight_go_on_with_newer_weights(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "CHUNK", 4)
    engine = Detached(NativeEngine(copied := replica(policy)), copied)
    engine.take_over(3, before := weights_of(policy))
    after, asked = other(policy), requests(policy, 3, 10)
    looks = 0

    def newer() -> tuple[int, Any] | None:
        nonlocal looks
        looks += 1
        # From the second piece of the first one on.
        return (5, after) if looks > 4 and engine.version == 3 else None

    engine.newer = newer
    session = engine.session(ON)
    for request in asked:
        session.submit(request)
    session.end()
    found = {}
    while session.waiting:
        number, completion = session.next()
        found[number] = completion
    session.close()
    assert sorted(found) == [0, 1, 2]
    versions = [[version for version, _ in each.parts] for each in found.values()]
    assert all(each in ([3], [3, 5]) for each in versions)
    assert [3, 5] in versions
    for number, completion in found.items():
        assert len(completion.tokens) == len(completion.logp) == len(completion.entropy) == 10
        assert [token for _, part in completion.parts for token in part.tokens] == completion.tokens
        # Each token's log-probability is that of the weights that its part names, after all that stands before it.
        rollout = Rollout(asked[number], (Segment(tuple(completion.tokens)),))
        place = 0
        for version, part in completion.parts:
            take_over(policy, before if version == 3 else after)
            given = log_probs(policy, policy.actions([rollout]), width=10, temperature=1.0, micro_tokens=64)["logp"][0]
            assert part.sampled_logp == pytest.approx(given[place : place + len(part.tokens)].tolist(), abs=1e-4)
            place += len(part.tokens)


def test_rollouts_in_flight_end_where_they_are(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the beginning of what they would have had, and are not finished; what is over already is."""
    monkeypatch.setattr(detached, "CHUNK", 4)
    engine = Detached(NativeEngine(copied := replica(policy)), copied)
    engine.newer, engine.partial = lambda: None, True
    whole = dict(engine.generate(asked := requests(policy, 3, 10), ON))
    looks = 0

    def newer() -> tuple[int, Any] | None:
        nonlocal looks
        looks += 1
        return (1, weights_of(policy)) if looks > 4 else None

    engine.newer = newer
    found = dict(engine.generate(asked, ON))
    assert engine.version == 0
    # One had its last piece drawn when the weights came.
    assert sorted(len(found[number].tokens) for number in range(3)) == [8, 8, 10]
    for number, completion in found.items():
        assert not completion.finished
        assert completion.tokens == whole[number].tokens[: len(completion.tokens)]


def test_without_newer_weights_pieces_are_one_part(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "CHUNK", 3)
    engine = Detached(NativeEngine(copied := replica(policy)), copied)
    engine.newer = lambda: None
    found = dict(engine.generate(requests(policy, 4, 8), ON))
    assert all(
        [(version, part.tokens) for version, part in each.parts] == [(0, each.tokens)] for each in found.values()
    )
    assert [len(found[number].tokens) for number in range(4)] == [8] * 4
    # A rollout that ends in the middle of a piece is over.
    ends = frozenset(found[number].tokens[4] for number in range(4))
    short = dict(engine.generate(requests(policy, 4, 8), Sampling(stop_ids=ends)))
    assert all(each.finished and len(each.tokens) <= 5 for each in short.values())


def test_a_rollout_is_over_where_the_engine_gives_less_than_was_asked_for(
    policy: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as at the end of what a server can read: another piece would be as short, for ever."""
    monkeypatch.setattr(detached, "CHUNK", 4)
    given: list[int] = []

    def session(sampling: Sampling) -> NativeSession:
        made = plain(sampling)
        drawn = made.next_unless

        def bounded(stop: Callable[[], bool]) -> tuple[int, Completion] | None:
            found = drawn(stop)
            if found is None:
                return None
            number, whole = found
            given.append(min(6 - sum(given), len(whole.tokens)))
            lists = {key: value[: given[-1]] for key, value in vars(whole).items() if isinstance(value, list)}
            return number, replace(whole, **lists)

        monkeypatch.setattr(made, "next_unless", bounded)
        return made

    inner = NativeEngine(copied := replica(policy))
    plain = inner.session
    monkeypatch.setattr(inner, "session", session)
    engine = Detached(inner, copied)
    engine.newer = lambda: None
    ((_, found),) = engine.generate(requests(policy, 1, 20), ON)
    assert given == [4, 2]
    assert len(found.tokens) == 6
    assert not found.finished
