"""A pool of vLLM servers, stand-ins for them, which go and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool import servers
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.session import PoolSession
from cohort.errors import EngineError, UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.training.config import make_config
from cohort.training.engines import make_engine
from tests.engine.pool import runs
from tests.engine.vllm.fakes import FakeServer, Model, serving
from tests.helpers import prompt_of, request_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeServer]]:
    monkeypatch.setattr(servers, "APART", 0.05)
    with serving(FakeServer(Model(folder))) as one, serving(FakeServer(Model(folder))) as two:
        yield [one, two]


def policy_of(folder: Path) -> CausalLM:
    return CausalLM.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)


@contextmanager
def pool_of(
    folder: Path, policy: CausalLM, pair: list[FakeServer], said: list[str], **more: Any
) -> Iterator[EnginePool]:
    config = make_config(
        runs.base(folder, Path("unused")),
        {"engine": "vllm", "engine_url": [each.url for each in pair], "engine_wait": 10.0, **more},
    )
    pool = make_engine(config, policy, Sampling(), said.append)
    assert isinstance(pool, EnginePool)
    try:
        yield pool
    finally:
        pool.close()


def requests_of(policy: CausalLM, count: int = 8) -> list[Any]:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a longer one, is it?")]
    return [request_of(prompts[k % 2], seed=k, count=8) for k in range(count)]


def apart(pool: EnginePool, policy: CausalLM) -> float:
    """Largest difference of log-probabilities from those of the policy's own weights; inf if the tokens differ."""
    requests = requests_of(policy)
    theirs, ours = (dict(each.generate(requests, Sampling())) for each in (pool, NativeEngine(policy)))
    assert sorted(theirs) == sorted(ours)
    if any(theirs[i].tokens != ours[i].tokens for i in ours):
        return float("inf")
    return max(abs(a - b) for i in ours for a, b in zip(theirs[i].sampled_logp, ours[i].sampled_logp, strict=True))


def shaken(policy: CausalLM) -> None:
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("rank", [0, 2])
def test_every_server_takes_over_every_version(folder: Path, pair: list[FakeServer], rank: int) -> None:
    policy, said = policy_of(folder), []
    if rank:
        policy.add_lora(rank)
    with pool_of(folder, policy, pair, said, lora=rank) as pool:
        assert not pool.exact
        for _ in range(3):
            assert apart(pool, policy) < 1e-5
            shaken(policy)
            pool.sync()
        assert apart(pool, policy) < 1e-5
        for each in pair:
            loads = [what for what, _ in each.calls if what in ("reload", "adopt")]
            assert len(loads) == 4
        metrics = pool.metrics()
        assert metrics["engine/workers"] == 2
        assert metrics["engine/transfer_bytes"] > 0
        # Every version was written once.
        written = {at for each in pair for what, at in each.calls if what in ("reload", "adopt")}
        assert len(written) == 4
    assert said == []


def test_a_run_goes_on_while_a_server_is_away_and_uses_it_when_it_is_back(
    folder: Path, pair: list[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back with the weights that it was started with."""
    alone = runs.run(runs.base(folder, tmp_path / "alone"), steps=6)
    away, back = pair[0], threading.Event()

    def go(session: PoolSession) -> None:
        away.gone = True

    def come(session: PoolSession) -> None:
        away.model.start()
        away.gone = False
        back.set()

    gone = runs.when_dealt(monkeypatch, 1, go)
    runs.when_dealt(monkeypatch, 3, come)
    before = PoolSession.submit

    def submit(self: PoolSession, request: Any) -> int:
        deadline = time.monotonic() + 20
        while self.id == 4 and sum(each.alive for each in self.pool.members) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return before(self, request)

    monkeypatch.setattr(PoolSession, "submit", submit)
    result = runs.run(
        runs.base(folder, tmp_path / "run"), steps=6, engine="vllm", engine_url=[each.url for each in pair]
    )
    assert gone.is_set()
    assert back.is_set()
    workers = [step["engine/workers"] for step in result.metrics]
    assert workers[0] == 2
    assert workers[1] == workers[2] == 1
    assert workers[4] == workers[5] == 2
    assert result.metrics[-1]["engine/redrawn"] >= 1
    for mine, theirs in zip(result.metrics, alone.metrics, strict=True):
        assert mine["mismatch"] < 1e-5
        assert mine["reward/mean"] == pytest.approx(theirs["reward/mean"], abs=1e-6)


def test_a_server_that_takes_weights_over_in_part_is_found_out_among_others(
    folder: Path, pair: list[FakeServer], tmp_path: Path
) -> None:
    pair[1].model.stuck = "up_proj"
    with pytest.raises(
        EngineError, match=r"it does not take over changes of model.layers.\*.mlp.up_proj.weight\. The step"
    ):
        runs.run(runs.base(folder, tmp_path / "run"), steps=6, engine="vllm", engine_url=[each.url for each in pair])


def test_servers_that_are_never_there_are_named_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = stack.enter_context(serving(FakeServer(Model(folder))))
        urls = [there.url, "http://127.0.0.1:9"]
        with pytest.raises(
            UsageError, match=r"server-1 \(the vLLM server at http://127.0.0.1:9 could not be reached.*vllm serve"
        ):
            runs.run(runs.base(folder, tmp_path / "run"), engine="vllm", engine_url=urls, engine_wait=3.0)
        assert not (tmp_path / "run").exists()
        there.dev = False
        with pytest.raises(UsageError, match="VLLM_SERVER_DEV_MODE"):
            runs.run(runs.base(folder, tmp_path / "run"), engine="vllm", engine_url=[there.url, there.url])


def test_options_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path) -> None:
    for more, says in (
        ({"engine_url": "http://127.0.0.1:9"}, "say --engine vllm too"),
        ({"worker_engine": "vllm"}, "worker_engine is of workers that Ray places"),
        ({"ray_address": "auto"}, "ray_address is of workers that Ray places"),
        ({"engine": "vllm", "workers": 2}, "name each vLLM server"),
        ({"engine": "ray", "worker_engine": "vllm"}, "needs vLLM in this environment"),
    ):
        with pytest.raises(UsageError, match=says):
            runs.run(runs.base(folder, tmp_path / "run"), **more)
    assert make_config({"engine_url": None}).inference.engine_url == []
    assert make_config({"engine_url": "http://a"}).inference.engine_url == ["http://a"]
