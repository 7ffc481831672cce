"""Requests that come in while others are drawn: what they give does not depend on when they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.base import Completion, Sampling, Session
from cohort.engine.native.engine import NativeEngine
from cohort.engine.vllm.engine import VLLMEngine
from cohort.engine.vllm.server import Server
from cohort.engine.vllm.weights import Folder
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request
from tests.engine.vllm.fakes import FakeServer, Model, serving
from tests.helpers import prompt_of, request_of, tiny_policy

POLICIES = {"shared": tiny_policy("qwen3"), "modules": tiny_policy("gemma2"), "cached": tiny_policy("qwen3")}
POLICIES["cached"].__dict__["forward_mode"] = "padded"


def some(policy: CausalLM, count: int = 9) -> list[Request]:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a longer one, is it?", "7")]
    return [request_of(prompts[i % 3], seed=i, count=3 + 5 * (i % 4)) for i in range(count)]


def same(a: Completion, b: Completion) -> bool:
    return (
        a.tokens == b.tokens and a.finished == b.finished and a.sampled_logp == pytest.approx(b.sampled_logp, abs=1e-4)
    )


def interleaved(session: Session, requests: list[Request], waves: list[int]) -> dict[int, Completion]:
    """Submit as many as a wave says, take one completion, and so on."""
    left, found = list(requests), {}
    for size in waves:
        for request in left[:size]:
            session.submit(request)
        left = left[size:]
        if session.waiting:
            number, completion = session.next()
            found[number] = completion
    for request in left:
        session.submit(request)
    session.end()
    while session.waiting:
        number, completion = session.next()
        found[number] = completion
    session.close()
    return found


@pytest.mark.parametrize("kind", sorted(POLICIES))
@settings(max_examples=8, deadline=None)
@given(waves=st.lists(st.integers(0, 4), max_size=8), slots=st.sampled_from([1, 3, 64]))
def test_what_is_drawn_does_not_depend_on_when_it_is_asked_for(kind: str, waves: list[int], slots: int) -> None:
    policy = POLICIES[kind]
    requests, sampling = some(policy), Sampling(temperature=0.9, top_p=0.95)
    expected = dict(NativeEngine(policy).generate(requests, sampling))
    found = interleaved(NativeEngine(policy, slots=slots).session(sampling), requests, waves)
    assert sorted(found) == sorted(expected)
    assert all(same(found[i], expected[i]) for i in expected)


def test_a_later_turn_comes_in_while_others_are_drawn() -> None:
    """The completion of one request is the history of the next, in one session with rollouts that go on."""
    policy = POLICIES["shared"]
    session = NativeEngine(policy).session(Sampling(stop_ids=frozenset()))
    long = session.submit(request_of(prompt_of(policy, "a long one"), seed=1, count=40))
    first = session.submit(request_of(prompt_of(policy, "1 + 1 ="), seed=2, count=3))
    order, history = [], ()
    for turn in range(4):
        number, completion = session.next()
        order.append(number)
        assert number == first + turn
        history = (*history, *completion.tokens)
        session.submit(request_of(prompt_of(policy, "1 + 1 ="), seed=3 + turn, count=3, prefix=history))
    session.end()
    rest = [session.next() for _ in range(session.waiting)]
    assert {number for number, _ in rest} == {long, first + 4}
    whole = dict(rest)[long]
    ((_, alone),) = NativeEngine(policy).generate(
        [request_of(prompt_of(policy, "a long one"), seed=1, count=40)], Sampling(stop_ids=frozenset())
    )
    assert same(whole, alone)


def test_a_session_goes_on_after_it_was_idle_and_says_when_nothing_waits() -> None:
    policy = POLICIES["shared"]
    session = NativeEngine(policy).session(Sampling())
    with pytest.raises(LookupError):
        session.next()
    for request in some(policy, 2):
        session.submit(request)
    assert [session.next()[0] for _ in range(2)] in ([0, 1], [1, 0])
    with pytest.raises(LookupError):
        session.next()
    assert session.submit(some(policy, 3)[2]) == 2
    assert session.next()[0] == 2
    assert session.waiting == 0


@pytest.mark.filterwarnings("ignore:.*does not take its attention")
@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_waiting_is_left_off_where_there_is_something_else_to_do(kind: str) -> None:
    policy = POLICIES[kind]
    requests, sampling = some(policy, 5), Sampling(stop_ids=frozenset())
    expected = dict(NativeEngine(policy).generate(requests, sampling))
    session = NativeEngine(policy).session(sampling)
    with pytest.raises(LookupError):
        session.next_unless(lambda: True)
    found, left_off = {}, 0
    for request in requests:
        session.submit(request)
        for _ in range(2):
            given = session.next_unless(lambda: True) if session.waiting else None
            left_off += given is None
            found |= dict([given] if given else [])
    while session.waiting:
        given = session.next_unless(lambda: False)
        assert given is not None
        found |= dict([given])
    assert left_off > 4
    assert all(same(found[i], expected[i]) for i in expected)


def test_those_that_come_later_may_end_at_once() -> None:
    """Some of many that come in while few are drawn end with their first token, and others move to their places."""
    policy = POLICIES["shared"]
    prompt = prompt_of(policy, "1 + 1 =")
    first, *others = requests = [request_of(prompt, seed=i, count=1 if i % 2 else 9) for i in range(7)]
    expected = dict(NativeEngine(policy).generate(requests, Sampling(stop_ids=frozenset())))
    session = NativeEngine(policy).session(Sampling(stop_ids=frozenset()))
    session.submit(first)
    assert session.next_unless(lambda: True) is None
    assert session.next_unless(lambda: True) is None
    for request in others:
        session.submit(request)
    found = dict(session.next() for _ in range(session.waiting))
    assert all(same(found[i], expected[i]) for i in expected)


def test_memory_that_runs_out_in_a_session_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from cohort.engine.native.shared import SharedDecoder

    policy = POLICIES["shared"]
    requests, take = some(policy), SharedDecoder._take
    expected = dict(NativeEngine(policy).generate(requests, Sampling()))
    calls = iter(range(1000))

    def failing(self: Any, logits: Any, start: int = 0) -> Any:
        if next(calls) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return take(self, logits, start)

    monkeypatch.setattr(SharedDecoder, "_take", failing)
    engine = NativeEngine(policy)
    with pytest.warns(RuntimeWarning, match="memory ran out"):
        found = interleaved(engine.session(Sampling()), requests, [5, 1, 1])
    assert all(same(found[i], expected[i]) for i in expected)
    assert engine.slots < 128


def test_a_server_takes_requests_while_others_are_drawn(tmp_path: Path) -> None:
    tiny_policy("qwen3").save(tmp_path / "model")
    policy = CausalLM.load(str(tmp_path / "model"))
    requests = some(policy)
    with serving(FakeServer(Model(tmp_path / "model"))) as server:
        backend = Server(server.url, pause=0.01)
        backend.check(policy.name, adapters=False, folder=True)
        engine = VLLMEngine(policy, backend, Folder(policy, backend))
        found = interleaved(engine.session(Sampling()), requests, [2, 0, 3])
        session = engine.session(Sampling())
        session.submit(requests[0])
        assert session.next_unless(lambda: True) is None
        given = session.next_unless(lambda: False)
        assert given is not None
        assert (given[0], given[1].tokens) == (0, found[0].tokens)
        session.close()
        engine.close()
    expected = dict(NativeEngine(policy).generate(requests, Sampling()))
    assert {i: done.tokens for i, done in found.items()} == {i: done.tokens for i, done in expected.items()}
