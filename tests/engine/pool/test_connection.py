"""Members at the other end of connections: every kind of request passes, and weights may be seen to elsewhere."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.connection import connected, serve_connection
from cohort.engine.pool.here import here
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.weights import Elsewhere, Files
from cohort.errors import EngineError
from cohort.policies.causal_lm import CausalLM
from cohort.signals.entropy import EntropyTemperature
from cohort.types import Request, Segment
from cohort.types.soft import Mixer
from tests.engine.pool.hosts import copying
from tests.engine.pool.test_pool import alone, equal, shaken, some
from tests.engine.vllm.fake_module import FakeModule
from tests.helpers import prompt_of, request_of, tiny_policy


@contextmanager
def ranks(policy: CausalLM, count: int, *, shared: bool = False) -> Iterator[tuple[EnginePool, list[Connection]]]:
    """A pool of threads at the other ends of pipes.

    Args:
        shared: they draw from the policy itself, as ranks do from their replicas.
    """
    make = copying(policy)
    if shared:
        make = lambda: EngineHost(NativeEngine(policy, slots=8), lambda weights: 0)  # noqa: E731
    ends = [Pipe() for _ in range(count)]
    for _, far in ends:
        threading.Thread(target=serve_connection, args=(far, make), daemon=True).start()
    shelf = Elsewhere() if shared else Files()
    members = [(connected(f"rank-{at}", near), shelf) for at, (near, _) in enumerate(ends)]
    pool = EnginePool(policy, members, wait=10.0)
    pool.start()
    try:
        yield pool, [far for _, far in ends]
    finally:
        pool.close()


def cut(connection: Connection) -> None:
    """End a connection for both sides, as the death of a machine does."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def kinds(policy: CausalLM) -> dict[str, tuple[list[Request], Sampling]]:
    """Every kind of request, and of how they are drawn."""
    plain = some(policy, 6)
    history = (Segment((40, 41), "policy", logp=(-1.0, -2.0)), Segment((42, 43, 44), "environment"))
    return {
        "processor": (
            [replace(each, processor=EntropyTemperature(0.6, 0.3, 0.8, 0.7, -1.5)) for each in plain],
            Sampling(),
        ),
        "soft": ([replace(each, mixer=Mixer(end=(7,))) for each in plain], Sampling()),
        "truncated": (plain, Sampling(temperature=0.8, top_p=0.9, top_k=20, min_p=0.01)),
        "shaped": (plain, Sampling(stop=("a", "7"), min_new_tokens=2, logit_bias={5: 2.0})),
        "greedy": (plain, Sampling(temperature=0.0)),
        "turns": ([replace(each, history=history) for each in plain], Sampling()),
    }


def test_every_kind_of_request_passes_a_connection() -> None:
    policy = tiny_policy("qwen3")
    with ranks(policy, 2) as (pool, _):
        for name, (requests, sampling) in kinds(policy).items():
            found = dict(pool.generate(requests, sampling))
            expected = alone(policy, requests, sampling)
            assert sorted(found) == sorted(expected)
            for at, one in found.items():
                other = expected[at]
                assert (one.tokens, one.sampled_logp, one.stop) == (other.tokens, other.sampled_logp, other.stop), name
                assert repr(vars(one)) == repr(vars(other)), name


def test_weights_that_others_see_to_are_those_of_the_last_version() -> None:
    policy = tiny_policy("qwen3")
    with ranks(policy, 1, shared=True) as (pool, _):
        for _ in range(2):
            requests = some(policy)
            assert equal(dict(pool.generate(requests, Sampling())), alone(policy, requests, Sampling()))
            shaken(policy)
            pool.sync()
        assert pool.metrics()["engine/transfer_bytes"] == 0


def test_a_rank_that_is_gone_is_gone_for_good() -> None:
    policy = tiny_policy("qwen3")
    requests = [request_of(prompt_of(policy, "7"), seed=k, count=40) for k in range(8)]
    sampling = Sampling(stop_ids=frozenset())
    with ranks(policy, 2) as (pool, far):
        session = pool.session(sampling)
        for request in requests:
            session.submit(request)
        session.end()
        cut(far[0])
        found = dict(session.next() for _ in requests)
        session.close()
        assert equal(found, alone(policy, requests, sampling))
        assert [member.alive for member in pool.members] == [False, True]
        cut(far[1])
        with pytest.raises(EngineError, match=r"no worker is there: rank-0 \(.*\); rank-1 \(.*--resume"):
            list(pool.generate(requests, sampling))


@pytest.mark.parametrize("lora", [0, 2])
def test_vllm_in_an_actor_takes_over_what_its_pool_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: int
) -> None:
    FakeModule(monkeypatch)
    tiny_policy("qwen3").save(tmp_path)
    policy = CausalLM.load(str(tmp_path))
    if lora:
        policy.add_lora(lora)
    vllm = {"memory": 0.4, "masked": False, "seed": 0}
    blueprint = Blueprint.of(policy, lora=lora, slots=8, threads=1, vllm=vllm)
    pool = EnginePool(policy, [(here("actor", blueprint.host), Files())], exact=False, wait=30.0)
    pool.start()
    requests = some(policy, 6)
    for _ in range(3):
        found, expected = dict(pool.generate(requests, Sampling())), alone(policy, requests, Sampling())
        assert all(found[at].tokens == expected[at].tokens for at in expected)
        assert all(found[at].sampled_logp == pytest.approx(expected[at].sampled_logp, abs=1e-5) for at in expected)
        shaken(policy)
        pool.sync()
    pool.close()
