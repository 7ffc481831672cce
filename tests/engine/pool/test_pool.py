"""A pool of members in this process, which die at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.here import here
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import Joined, Offer, Reply, check_sendable
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.session import DEATHS
from cohort.engine.pool.weights import Files, changing
from cohort.errors import EngineError, UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request, Segment
from tests.engine.pool.hosts import Copied, Copies, copying
from tests.helpers import prompt_of, request_of, tiny_policy

SAMPLING = Sampling(temperature=0.9)


class Broken(Exception):
    """What a host that dies raises."""


class Mortal(EngineHost):
    """A host that dies when it is told to: after so many completions."""

    lives: list[int | None]

    def take(self, stop: Callable[[], bool]) -> list[Reply]:
        if self.lives[0] == 0:
            self.lives[0] = None
            raise Broken("planted")
        replies = super().take(stop)
        if self.lives[0] is not None and replies:
            self.lives[0] -= 1
        return replies


@contextmanager
def pool_of(policy: CausalLM, lives: list[list[int | None]], **how: Any) -> Iterator[EnginePool]:
    """A pool of hosts here; `lives`: of each, the completions after which it dies once, None for never."""
    make = copying(policy)

    def mortal(own: list[int | None]) -> Callable[[], EngineHost]:
        def made() -> EngineHost:
            host = make()
            host = Mortal(host.engine, host.take_over)
            host.lives = own
            return host

        return made

    shelf = Copies()
    members = [(here(f"host-{at}", mortal(own)), shelf) for at, own in enumerate(lives)]
    pool = EnginePool(policy, members, **{"wait": 10.0, **how})
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def policy() -> CausalLM:
    return tiny_policy("qwen3")


def some(policy: CausalLM, count: int = 12) -> list[Request]:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a longer one, is it?", "7")]
    return [request_of(prompts[i % 3], seed=i, count=3 + 5 * (i % 4)) for i in range(count)]


def alone(policy: CausalLM, requests: list[Request], sampling: Sampling = SAMPLING) -> dict[int, Completion]:
    return dict(NativeEngine(policy).generate(requests, sampling))


def equal(found: dict[int, Completion], expected: dict[int, Completion]) -> bool:
    """To the last bit."""
    return sorted(found) == sorted(expected) and all(vars(found[i]) == vars(expected[i]) for i in expected)


def shaken(policy: CausalLM) -> None:
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.1 * torch.randn_like(parameter))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives=st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=2, max_size=3), ended=st.booleans())
def test_whoever_dies_whenever_every_request_is_answered_once_and_alike(lives: list[int | None], ended: bool) -> None:
    policy = tiny_policy("qwen3")
    requests = some(policy)
    with pool_of(policy, [[life] for life in lives]) as pool:
        session = pool.session(SAMPLING)
        for request in requests:
            session.submit(request)
        if ended:
            session.end()
        found: list[tuple[int, Completion]] = []
        while session.waiting:
            found.append(session.next())
        session.close()
        assert len(found) == len(requests)
        assert equal(dict(found), alone(policy, requests))
        planted = sum(life is not None for life in lives)
        metrics = pool.metrics()
        assert metrics["engine/restarts"] <= planted
        assert metrics["engine/redrawn"] <= planted * len(requests)


def test_turns_go_on_where_they_were_and_elsewhere_after_a_death(policy: CausalLM) -> None:
    """Each request goes on from the one before; the member that keeps these dies half-way."""
    prompts = [prompt_of(policy, text) for text in ("1 + 1 =", "and then", "so it is")]
    sampling = Sampling(stop_ids=frozenset())

    def turns(session: Any, after: Callable[[int], None] = lambda turn: None) -> list[list[int]]:
        said: list[list[int]] = [[], [], []]
        last: dict[int, int] = {}
        for turn in range(4):
            after(turn)
            asked = {}
            for at, prompt in enumerate(prompts):
                history = tuple(Segment((token,)) for token in said[at])
                request = Request(prompt, prompt.tokens, seed=10 * at + turn, max_new_tokens=3, history=history)
                asked[session.submit(request)] = at
            for _ in prompts:
                number, completion = session.next()
                at = asked[number]
                said[at] += completion.tokens
                if at in last:
                    session.forget(last[at])
                last[at] = number
        session.close()
        return said

    expected = turns(NativeEngine(policy).session(sampling))
    lives: list[list[int | None]] = [[None], [None]]
    with pool_of(policy, lives) as pool:
        session = pool.session(sampling)
        owners: list[set[str]] = []

        def look(turn: int) -> None:
            owners.append({member.name for member in session._keepers.values()})
            if turn == 2:
                lives[0][0] = 0

        assert turns(session, look) == expected
        assert pool.metrics()["engine/redrawn"] >= 1
        # Before the death both kept something, of three conversations.
        assert owners[1] == {"host-0", "host-1"}


def test_weights_are_those_of_the_session_whatever_comes_meanwhile(policy: CausalLM) -> None:
    requests = some(policy)
    with pool_of(policy, [[None], [2]]) as pool:
        before = alone(policy, requests)
        early = pool.session(SAMPLING)
        numbers = [early.submit(request) for request in requests[:6]]
        first = early.next()
        shaken(policy)
        pool.sync()
        after = alone(policy, requests)
        assert vars(after[0]) != vars(before[0])
        late = pool.session(SAMPLING)
        for request in requests:
            late.submit(request)
        assert late.next_unless(lambda: True) is None  # it is dealt, and waits for other weights than are drawn with
        found = dict([first, *(early.next() for _ in range(5))])
        assert equal(found, {number: before[number] for number in numbers})
        # It may even go on, although others draw with newer weights.
        more = early.submit(requests[7])
        assert vars(early.next()[1]) == vars(before[7])
        assert more == 6
        early.close()
        assert equal(dict(late.next() for _ in requests), after)
        late.close()
        assert list(pool._offers) == [1]
        metrics = pool.metrics()
        size = sum(each.numel() * each.element_size() for each in changing(policy).values())
        assert metrics["engine/transfer_bytes"] % size == 0
        assert metrics["engine/transfer_bytes"] >= 3 * size
        assert metrics["engine/workers"] + metrics["engine/redrawn"] >= 2  # who died may not be back
        assert pool.metrics()["engine/transfer_bytes"] == 0


def test_adapters_alone_travel(policy: CausalLM) -> None:
    policy.add_lora(2)
    requests = some(policy, 4)
    with pool_of(policy, [[None], [None]]) as pool:
        for _ in range(2):
            assert equal(dict(pool.generate(requests, SAMPLING)), alone(policy, requests))
            shaken(policy)
            pool.sync()
        adapters = sum(p.numel() * 4 for p in policy.trainable())
        assert adapters < 0.5 * sum(p.numel() * 4 for p in policy.model.parameters())
        assert pool.metrics()["engine/transfer_bytes"] == 2 * 2 * adapters


def test_a_request_that_kills_whoever_draws_it_is_found_out(policy: CausalLM) -> None:
    make = copying(policy)

    class Poisoned(EngineHost):
        def submit(self, session: int, ticket: int, request: Request) -> None:
            if request.seed == 5:
                raise Broken("out of luck")
            super().submit(session, ticket, request)

    def made() -> EngineHost:
        host = make()
        return Poisoned(host.engine, host.take_over)

    pool = EnginePool(policy, [(here(f"host-{at}", made), Copies()) for at in range(2)], wait=10.0)
    pool.start()
    with pytest.raises(EngineError, match=rf"{DEATHS} workers were lost.*Broken: out of luck") as caught:
        list(pool.generate(some(policy), SAMPLING))
    assert str(caught.value).count("out of luck") == DEATHS
    pool.close()


def test_where_no_member_is_left_the_error_says_who_went_and_how(policy: CausalLM) -> None:
    make = copying(policy)
    gone = threading.Event()

    def made() -> EngineHost:
        if gone.is_set():
            raise EngineError("its machine is off")
        return make()

    said: list[str] = []
    pool = EnginePool(policy, [(here("only", made), Copies())], wait=0.5, log=said.append)
    pool.start()
    session = pool.session(SAMPLING)
    for request in some(policy):
        session.submit(request)
    gone.set()
    pool.members[0].link.break_off("it went")
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"no worker is there for 0 s \(engine_wait\): only \(its machine is off\)"):
        [session.next() for _ in range(session.waiting)]
    assert time.monotonic() - began < 5
    assert "only was lost (it went)" in said[0]
    # It may be back later, and the session goes on.
    gone.clear()
    while session.waiting:
        try:
            session.next()
        except EngineError:
            time.sleep(0.1)
    pool.close()


def test_a_member_whose_thread_ends_is_gone_and_says_why(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was that nobody had thought of: drawing would wait for it for ever."""

    def failing(*_: Any) -> None:
        raise Broken("planted")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    pool = EnginePool(policy, [(here("first", copying(policy)), Copies())], wait=10.0)
    pool.start()
    monkeypatch.setattr(pool, "_take", failing)
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"no worker is there: first \(Broken: planted\)"):
        list(pool.generate(some(policy), SAMPLING))
    assert time.monotonic() - began < 5
    pool.close()

    def reach(closing: threading.Event) -> Any:
        raise KeyError("nobody thought of this")

    pool = EnginePool(policy, [(Link("second", reach), Copies())], wait=10.0)
    with pytest.raises(UsageError, match=r"second \(KeyError: 'nobody thought of this'\)"):
        pool.start()
    pool.close()


def test_what_members_refuse_is_raised_as_it_is(policy: CausalLM) -> None:
    class Refusing(EngineHost):
        def take(self, stop: Callable[[], bool]) -> list[Reply]:
            raise UsageError("no such tokens")

    def made() -> EngineHost:
        host = copying(policy)()
        return Refusing(host.engine, host.take_over)

    pool = EnginePool(policy, [(here("host", made), Copies())], wait=10.0)
    pool.start()
    with pytest.raises(UsageError, match="no such tokens"):
        list(pool.generate(some(policy), SAMPLING))
    pool.close()

    def never() -> EngineHost:
        raise UsageError("no such model")

    pool = EnginePool(policy, [(here("host", never), Copies())], wait=10.0)
    with pytest.raises(UsageError, match="no such model"):
        pool.start()
    pool.close()


def test_one_that_comes_later_takes_its_share(policy: CausalLM) -> None:
    requests = some(policy, 24)
    make, shelf, there = copying(policy), Copies(), threading.Event()
    second = here("second", make)
    reach = second._reach

    def late(closing: threading.Event) -> Any:
        if not there.is_set():
            raise OSError("its machine is not there yet")
        return reach(closing)

    said: list[str] = []
    members = [(here("first", make), shelf), (Link("second", late), shelf)]
    pool = EnginePool(policy, members, wait=10.0, slots=4, log=said.append)
    pool.start(least=1)
    shaken(policy)
    pool.sync()
    session = pool.session(SAMPLING)
    for request in requests:
        session.submit(request)
    found = dict([session.next()])
    there.set()
    deadline = time.monotonic() + 10
    while pool.metrics()["engine/workers"] < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    found.update(session.next() for _ in range(23))
    assert equal(found, alone(policy, requests))
    assert pool.members[1].drawn > 0
    assert pool.metrics()["engine/workers"] == 2
    assert said == ["second: its machine is not there yet: waiting for it, 10 s at most (engine_wait)"]
    pool.close()


def test_waiting_is_left_off_where_there_is_something_else_to_do(policy: CausalLM) -> None:
    with pool_of(policy, [[None]]) as pool:
        session = pool.session(SAMPLING)
        with pytest.raises(LookupError):
            session.next()
        session.submit(some(policy)[0])
        asked = []

        def stop() -> bool:
            asked.append(1)
            return len(asked) > 1

        found = session.next_unless(stop)
        while found is None:
            found = session.next_unless(lambda: False)
        assert found[0] == 0
        session.close()


def test_weights_of_another_model_are_refused(policy: CausalLM) -> None:
    host = copying(policy)()
    other = {name: value[..., :1] for name, value in changing(policy).items()}
    host.do(Offer(0, Copied(other)))
    host.open(0, SAMPLING, 0)
    host.submit(0, 0, some(policy)[0])
    with pytest.raises(EngineError, match="of another model"):
        host.take(lambda: False)
    assert host.version is None


def test_one_that_gives_no_sign_of_life_is_left(policy: CausalLM) -> None:
    """It takes what it is given, and says nothing any more."""

    class Silent:
        def __init__(self) -> None:
            self.said = [Joined()]

        def send(self, commands: Any) -> None:
            pass

        def receive(self, seconds: float) -> list[Reply]:
            if self.said:
                return [self.said.pop()]
            time.sleep(seconds)
            return []

        def close(self, *, kindly: bool) -> None:
            pass

    said: list[str] = []
    silent = Link("silent", lambda closing: Silent(), silence=0.3)
    stuck = Link("stuck", lambda closing: Silent(), silence=None)
    ways = [(silent, Copies()), (stuck, Copies()), (here("well", copying(policy)), Copies())]
    pool = EnginePool(policy, ways, wait=10.0, timeout=0.6, log=said.append)
    pool.start()
    requests = some(policy)
    assert equal(dict(pool.generate(requests, SAMPLING)), alone(policy, requests))
    lost = "\n".join(said)
    assert "silent was lost (it gave no sign of life for 0 s): its" in lost
    assert "stuck was lost (it completed nothing for 1 s (engine_timeout)): its" in lost
    pool.close()


def test_a_model_that_came_as_an_object_with_its_adapter_is_made_anew(policy: CausalLM) -> None:
    policy.add_lora(2)
    requests = some(policy, 6)
    shaken(policy)
    blueprint = Blueprint.of(policy, threads=1)
    shaken(policy)
    pool = EnginePool(policy, [(here("host", blueprint.host), Files())], wait=10.0)
    pool.start()
    assert equal(dict(pool.generate(requests, SAMPLING)), alone(policy, requests))
    pool.close()


def test_what_a_worker_cannot_be_made_of_is_said(policy: CausalLM, tmp_path: Path) -> None:
    blueprint = Blueprint(str(tmp_path / "nothing"), None, policy.dtype)
    pool = EnginePool(policy, [(here("host", blueprint.host), Copies())], wait=10.0)
    with pytest.raises(UsageError, match="no such folder"):
        pool.start()
    pool.close()
    policy.model.hook = lambda: None
    with pytest.raises(UsageError, match="cannot be sent to other processes"):
        Blueprint.of(policy)


def test_no_room_for_weights_is_found_out_when_next_something_is_drawn(policy: CausalLM, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    make = copying(policy)
    pool = EnginePool(policy, [(here("host", make), Files(tmp_path / "file"))], wait=10.0)
    pool.start()
    pool.sync()
    with pytest.raises(EngineError, match="cannot be put where workers fetch them"):
        pool.session(SAMPLING)
    pool.close()


class Scripted:
    """A processor of a file that is no module elsewhere."""


def test_what_draws_must_be_importable_elsewhere(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of(prompt_of(policy, "7"))
    check_sendable(request)
    monkeypatch.setattr(Scripted, "__module__", "a_script_of_the_users")
    scripted = Request(request.prompt, request.context, 0, 4, processor=Scripted())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Scripted of a_script_of_the_users, which other processes cannot import"):
        check_sendable(scripted)
