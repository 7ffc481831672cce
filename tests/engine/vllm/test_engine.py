"""vLLM as an engine, against stand-ins that speak its documented interface and draw with the embedded engine."""

from __future__ import annotations

import contextlib
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort import registry
from cohort.engine.base import Engine, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.vllm.engine import VLLMEngine, kinds
from cohort.engine.vllm.params import parameters
from cohort.engine.vllm.server import Server
from cohort.engine.vllm.weights import Folder
from cohort.errors import EngineError, UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rollouts.collect import Collector
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.engines import make_engine, reads_entropies
from cohort.training.run import Result, train
from cohort.types import Request
from cohort.types.support import excluded
from tests.engine.vllm.fake_module import FakeModule
from tests.engine.vllm.fakes import FakeServer, Model, serving
from tests.helpers import prompt_of, request_of, tiny_policy

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy("qwen3").save(path)
    return path


@pytest.fixture
def policy(folder: Path) -> CausalLM:
    return CausalLM.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def server(folder: Path) -> Iterator[FakeServer]:
    # A model's generation configuration often brings such defaults; a run's own settings must win over all of them.
    defaults = {"top_p": 0.5, "top_k": 3, "temperature": 0.1, "repetition_penalty": 1.3}
    with serving(FakeServer(Model(folder, defaults=defaults))) as running:
        yield running


@pytest.fixture
def base(folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(folder),
        "data": ROWS,
        "reward": ["format:[0-4]", "0.5*length"],
        "steps": 3,
        "prompts_per_step": 2,
        "group_size": 3,
        "max_new_tokens": 8,
        "lr": 3e-3,
        "tensorboard": False,
        "show_every": 0,
        "record_every": 0,
        "out": str(tmp_path / "run"),
        "engine": "vllm",
        "engine_wait": 0.2,
        "slots": 8,
    }


def run(base: dict[str, Any], **changes: Any) -> Result:
    resume = changes.pop("resume", False)
    return train(make_config(base, changes), resume=resume, display=Display(quiet=True))


def engine_at(policy: CausalLM, server: FakeServer, **options: Any) -> VLLMEngine:
    backend = Server(server.url, **{"pause": 0.01, "wait": 0.2, **options})
    backend.check(policy.name, adapters=policy.is_adapter, folder=not policy.is_adapter)
    return VLLMEngine(policy, backend, Folder(policy, backend))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def requests_of(policy: CausalLM) -> list[Request]:
    prompts = [prompt_of(policy, text) for text in ("1 + 2 =", "a longer one, is it?")]
    made = [request_of(prompt, seed=5 * p + k, count=8) for k in range(3) for p, prompt in enumerate(prompts)]
    return [*made, request_of(prompts[0], seed=2**63 - 1, count=6, prefix=(40, 41, 42))]


def shaken(policy: CausalLM) -> None:
    """Other weights, as after an update."""
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.1 * torch.randn_like(parameter))


def apart(engine: Engine, policy: CausalLM, sampling: Sampling | None = None) -> float:
    """Largest difference of its log-probabilities from those of the policy's own weights; inf if the tokens differ."""
    sampling, requests = sampling or Sampling(), requests_of(policy)[::3]
    theirs, ours = (dict(drawn.generate(requests, sampling)) for drawn in (engine, NativeEngine(policy)))
    if any(theirs[i].tokens != ours[i].tokens for i in ours):
        return math.inf
    pairs = [zip(theirs[i].sampled_logp, ours[i].sampled_logp, strict=True) for i in ours]
    return max(abs(a - b) for pair in pairs for a, b in pair)


# a whole run -------------------------------------------------------------------------------------------------------


def test_a_run_on_a_server_is_the_run_on_the_embedded_engine(
    server: FakeServer, base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the server lost in the middle of the second step, and the run continued on another one."""
    native = run({k: v for k, v in base.items() if not k.startswith("engine")}, out=str(tmp_path / "native"))
    monkeypatch.setattr(Server.__init__, "__kwdefaults__", {**Server.__init__.__kwdefaults__, "pause": 0.01})
    answer, draws = server.answer, iter(range(10_000))
    # A draw to check the server, one to check the model, 6 a step.
    monkeypatch.setattr(
        server, "answer", lambda m, path, b: (503, {}) if "compl" in path and next(draws) > 10 else answer(m, path, b)
    )
    with pytest.raises(EngineError, match=r"answered /v1/completions with 503.*\(waited"):
        run(base, engine_url=server.url)
    assert [name for name, _ in server.calls] == ["forget", *["reload", "forget"] * 2]  # the first tries it out
    with serving(FakeServer(Model(Path(base["model"])))) as another:
        ours = run(base, engine_url=another.url, resume=True)
    for a, b in zip(ours.metrics, native.metrics, strict=True):
        for name in ("reward/mean", "completion/length_mean", "loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5), name
        # What is drawn has the trainer's own probabilities, so its weights were taken over before every step.
        assert a["mismatch_max"] < 1e-4
        # The estimate from what was drawn is near the entropies that the embedded engine reports.
        assert a["entropy"] == pytest.approx(b["entropy"], rel=0.25)
    # Each version has a path of its own, and nothing is left of them.
    paths = [Path(what) for one in (server, another) for name, what in one.calls if name == "reload"]
    assert len(set(paths)) == len(paths) == 4
    assert not any(path.exists() for path in paths)


# weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["server", "here"])
@pytest.mark.parametrize("how", ["folder", "memory", "adapter"])
def test_new_weights_are_taken_over(
    server: FakeServer, policy: CausalLM, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str, how: str
) -> None:
    vllm = FakeModule(monkeypatch)
    vllm.servers[server.url] = server.model
    keys: dict[str, Any] = {"engine_url": server.url} if where == "server" else {}
    if how == "adapter":
        policy.add_lora(4)
        keys["lora"] = 4
        server.dev = False  # adapters do not need it
    else:
        server.runtime_lora = False
        keys["engine_weights"] = how
    engine = make_engine(make_config(base, keys), policy, Sampling())
    assert apart(engine, policy) < 1e-5
    shaken(policy)
    assert apart(engine, policy) > 1e-2  # not yet
    engine.sync()
    assert apart(engine, policy) < 1e-5
    model = server.model if where == "server" else vllm.made[0].model
    names = [name for name, _ in model.calls]
    if how == "folder":
        # The stand-in refuses to draw with what it has cached of other weights.
        assert names == [*["forget"] * (where == "server"), *["reload", "forget"] * 2]
    elif how == "memory":
        assert names == ["forget"] * 2
        assert vllm.transfers == ["init", *["start", "update", "finish"] * 2]
        if where == "server":
            assert (vllm.infos[0].world_size, vllm.infos[0].master_address) == (3, "127.0.0.1")  # two workers
        else:
            assert vllm.made[0].options["weight_transfer_config"].backend == "ipc"
    else:
        assert len({what for _, what in model.calls}) == len(names)
        assert names == ["adopt"] * 2
        assert list(model.adapters) == [model.calls[-1][1]]
        if where == "here":
            assert vllm.made[0].options["max_lora_rank"] == 8
    engine.close()


def test_a_server_that_keeps_old_weights_shows(server: FakeServer, policy: CausalLM) -> None:
    engine = engine_at(policy, server)
    assert apart(engine, policy) < 1e-5
    server.model.deaf = True
    shaken(policy)
    engine.sync()
    assert apart(engine, policy) > 1e-2


@pytest.mark.parametrize("stuck", ["up_proj", ""])
def test_weights_that_arrive_in_part_end_the_run_by_name(server: FakeServer, base: dict[str, Any], stuck: str) -> None:
    server.model.stuck = stuck
    if not stuck:
        run(base, engine_url=server.url, steps=4, lr=3e-2)  # large updates that do arrive
        return
    with pytest.raises(EngineError, match="other weights than those that are trained") as caught:
        run(base, engine_url=server.url, steps=6)
    named = re.search(r"changes of (.*)\. The step", str(caught.value))
    assert named, str(caught.value)
    assert named[1] == "model.layers.*.mlp.up_proj.weight"
    # What was saved is of the last whole step, and goes on from there where weights arrive.
    server.model.stuck = ""
    rest = run(base, engine_url=server.url, steps=6, resume=True, out=base["out"])
    assert len(rest.metrics) == 6
    assert max(row["mismatch_max"] for row in rest.metrics) < 1e-4


@pytest.mark.parametrize("lora", [0, 2])
def test_looking_for_weights_leaves_them_as_they_are(
    server: FakeServer, policy: CausalLM, monkeypatch: pytest.MonkeyPatch, lora: int
) -> None:
    if lora:
        policy.add_lora(lora)
        shaken(policy)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    engine = engine_at(policy, server)
    assert engine.not_taken_over() == []
    after = policy.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert apart(engine, policy) < 1e-5
    held = dict.fromkeys(range(1), *server.model.adapters.values())
    server.model.deaf = True
    monkeypatch.setattr(server.model, "adopt", lambda name, _: server.model.adapters.update({name: held[0]}))
    # Of few tokens not every change shows.
    assert len(engine.not_taken_over()) > len(kinds(policy)) / 2
    server.gone = True
    assert engine.not_taken_over() == []


def test_weights_of_a_tied_model_have_both_names(
    server: FakeServer, model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server on a CPU takes a tied output layer over only under its own name."""
    policy = CausalLM.load(str(model_folder("chat")), device=torch.device("cpu"), dtype=torch.float32)
    shaken(policy)
    seen: dict[str, torch.Tensor] = {}
    backend = Server(server.url)
    monkeypatch.setattr(backend, "load", lambda folder: seen.update(load_file(Path(folder) / "model.safetensors")))
    route = Folder(policy, backend)
    route.send()
    route.close()
    assert seen.keys() == policy.model.state_dict().keys()
    assert all(torch.equal(seen[name], value) for name, value in policy.model.state_dict().items())
    assert torch.equal(seen["lm_head.weight"], seen["model.embed_tokens.weight"])


def test_another_model_is_found_out(server: FakeServer) -> None:
    server.model.deaf = True
    server.ids = ("served-under-another-name",)
    other = tiny_policy("qwen3", seed=5)
    engine = engine_at(other, server)
    with pytest.raises(UsageError, match="does not hold the model that is trained"):
        list(engine.generate(requests_of(other), Sampling()))


# what is drawn -----------------------------------------------------------------------------------------------------

WAYS = {
    "plain": Sampling(),
    "cold": Sampling(temperature=0.6),
    "greedy": Sampling(temperature=0.0, top_k=7, top_p=0.5),
    "greedy of a truncated run": Sampling(temperature=0.0, top_k=7, top_p=0.5),
    "stops": Sampling(stop_ids=frozenset({11, 12, 13, 14, 15, 16, 17, 18})),
    "strings": Sampling(stop=("1", "e", "0", "a", "t", "=", "5", "n"), min_new_tokens=3),
    "bias": Sampling(logit_bias={20: 4.0, 21: -100.0}, min_new_tokens=5, stop_ids=frozenset(range(30, 60))),
    "truncated": Sampling(top_k=4, top_p=0.7, min_p=0.01, min_new_tokens=2, temperature=1.3),
}


@pytest.mark.parametrize("way", WAYS)
def test_completions_are_those_of_the_embedded_engine(folder: Path, policy: CausalLM, way: str) -> None:
    """Tokens, ends, stop reasons, kept tokens and log-probabilities, of every way of drawing."""
    sampling, requests = WAYS[way], requests_of(policy)
    expected = dict(NativeEngine(policy).generate(requests, sampling))
    masked = way in ("truncated", "greedy of a truncated run")
    with serving(FakeServer(Model(folder, masked=masked))) as server:
        engine = engine_at(policy, server, masked=masked)
        got = dict(engine.generate(requests, sampling))
        engine.close()
    assert sorted(got) == list(range(len(requests)))
    for place, done in got.items():
        theirs = expected[place]
        assert (done.tokens, done.finished, done.stop) == (theirs.tokens, theirs.finished, theirs.stop)
        if way == "greedy of a truncated run":  # drawn as the best of one, which says nothing of temperature 1
            assert all(map(math.isnan, [*done.sampled_logp, *done.logp]))
            continue
        assert done.sampled_logp == pytest.approx(theirs.sampled_logp, abs=1e-5)
        raw = [(a, b) for a, b in zip(done.logp, theirs.logp, strict=True) if not math.isnan(a)]
        assert all(a == pytest.approx(b, abs=1e-5) for a, b in raw)
        assert len(raw) == (0 if way in ("bias", "truncated") else len(done.tokens) if way != "strings" else len(raw))
        assert all(map(math.isnan, done.entropy))
        assert (done.candidates is not None) == (theirs.candidates is not None) == sampling.truncated
        if done.candidates is not None and theirs.candidates is not None:
            assert (
                excluded(done.candidates, policy.vocabulary) == excluded(theirs.candidates, policy.vocabulary)
            ).all()
    if way in ("stops", "strings", "bias"):
        assert any(done.finished for done in got.values())
        assert any(done.stop for done in got.values()) == (way == "strings")


def test_rollouts_come_as_they_finish(policy: CausalLM, server: FakeServer) -> None:
    engine = engine_at(policy, server)
    list(engine.generate(requests_of(policy)[:1], Sampling()))
    server.faults = [0.4]
    places = [place for place, _ in engine.generate(requests_of(policy), Sampling())]
    assert sorted(places) == list(range(7))
    assert places != sorted(places)


def test_everything_that_shapes_the_distribution_is_said() -> None:
    told = parameters(Sampling(), frozenset({3, 1}), seed=9, count=5)
    assert told["repetition_penalty"] == 1.0
    assert (told["temperature"], told["top_p"], told["top_k"], told["min_p"]) == (1.0, 1.0, -1, 0.0)
    assert told["ignore_eos"]
    assert told["stop_token_ids"] == [1, 3]
    assert (told["seed"], told["max_tokens"], told["logprobs"]) == (9, 5, 0)


# what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_request_that_fails_is_made_again(policy: CausalLM, server: FakeServer) -> None:
    engine, requests = engine_at(policy, server, timeout=2.0), requests_of(policy)
    expected = {place: done.tokens for place, done in engine.generate(requests, Sampling())}
    server.faults = [503, "drop", "garbage", "short", 429]
    assert {place: done.tokens for place, done in engine.generate(requests, Sampling())} == expected
    assert server.faults == []
    server.faults = [400]
    with pytest.raises(EngineError, match=r"answered /v1/completions with 400: not now$"):
        list(engine.generate(requests, Sampling()))


def test_a_server_that_was_started_anew_gets_the_weights_again(policy: CausalLM, server: FakeServer) -> None:
    engine = engine_at(policy, server)
    shaken(policy)
    assert apart(engine, policy) < 1e-5
    server.calls.clear()
    server.faults = ["restart"]
    # One at a time, so that all are drawn after it.
    for request in requests_of(policy):
        ((_, ours),) = engine.generate([request], Sampling())
        ((_, theirs),) = NativeEngine(policy).generate([request], Sampling())
        assert ours.tokens == theirs.tokens
    assert [name for name, _ in server.calls] == ["reload", "forget"]


def test_a_server_that_is_gone_is_an_error_when_the_wait_is_over(policy: CausalLM, folder: Path) -> None:
    with serving(FakeServer(Model(folder))) as server:
        engine = engine_at(policy, server)
        list(engine.generate(requests_of(policy), Sampling()))
    with pytest.raises(EngineError, match=r"could not be reached.*\(waited"):
        list(engine.generate(requests_of(policy), Sampling()))


def test_a_server_that_starts_is_waited_for(policy: CausalLM, folder: Path, base: dict[str, Any]) -> None:
    """At the beginning of a run, and when it is lost and starts anew in the middle, with the adapters it had forgotten."""
    policy.add_lora(4)
    shaken(policy)
    said: list[str] = []
    server = FakeServer(Model(folder))
    port = free_port()
    starting = threading.Timer(1.2, lambda: started.enter_context(serving(server, port)))
    with contextlib.ExitStack() as started:
        starting.start()
        changes = {"engine_url": f"http://127.0.0.1:{port}", "engine_wait": 30.0, "lora": 4}
        engine = make_engine(make_config(base, changes), policy, Sampling(), said.append)
        assert apart(engine, policy) < 1e-5
        assert "could not be reached for /v1/models" in said[0]
        assert "waiting for it, 30 s at most (engine_wait)" in said[0]
        assert "answers, after" in said[1]
        # Now it is lost while draws are under way, and comes back with nothing but the weights it was started with; a proxy
        # answers for it meanwhile.
        server.faults = ["restart", 503, 503]
        assert apart(engine, policy) < 1e-5
        assert server.faults == []
        # It starts anew between two draws, on a connection that nobody misses: the adapter is unknown.
        server.model.start()
        assert apart(engine, policy) < 1e-5
        engine.close()
    starting.join()


def test_nobody_waits_for_a_server_after_the_end(policy: CausalLM, folder: Path) -> None:
    with serving(FakeServer(Model(folder))) as server:
        engine = engine_at(policy, server, wait=60.0)
        list(engine.generate(requests_of(policy), Sampling()))
    began = time.monotonic()
    session = engine.session(Sampling())
    for request in requests_of(policy):
        session.submit(request)
    assert session.next_unless(lambda: time.monotonic() > began + 0.3) is None
    session.close()
    engine.close()
    for thread in threading.enumerate():
        if thread.name.startswith("vllm"):
            thread.join(10.0)
            assert not thread.is_alive()


def refused(base: dict[str, Any], policy: CausalLM, **changes: Any) -> str:
    config = make_config(base, changes)
    sampling = Sampling(
        config.sampling.temperature, config.sampling.top_p, config.sampling.top_k, config.sampling.min_p
    )
    with pytest.raises(UsageError) as caught:
        list(make_engine(config, policy, sampling).generate(requests_of(policy), sampling))
    return str(caught.value)


def test_what_a_server_lacks_is_said_before_anything_is_drawn(
    server: FakeServer, policy: CausalLM, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(**changes: Any) -> str:
        return refused(base, policy, **{"engine_url": server.url, **changes})

    assert "set top_k" in said(top_p=0.9)
    assert "--return-sampling-mask" in said(top_k=5)
    assert "could not be reached" in said(engine_url="http://127.0.0.1:9")
    assert "engine_folder" in said(engine_url="http://192.0.2.1:8000")
    assert "--engine-url nonsense" in said(engine_url="nonsense")
    server.key = "secret"
    assert "VLLM_API_KEY" in said()
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    server.dev = False
    assert "VLLM_SERVER_DEV_MODE=1" in said()
    server.dev, server.ids = True, ("one", "two")
    assert "serves one, two, but the model trained is" in said()
    server.ids, server.longest = (), 20
    assert "--max-model-len" in said()
    server.longest, server.model.processed = 128, False
    assert "--logprobs-mode processed_logprobs" in said()
    server.model.processed, server.runtime_lora = True, False
    policy.add_lora(2)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in said(lora=2)
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert "pip install 'cohort-rl[vllm]'" in said(engine_url=None)


def test_a_run_that_cannot_begin_leaves_nothing(base: dict[str, Any]) -> None:
    for changes, what in (
        ({"engine": "native", "engine_url": "http://127.0.0.1:9"}, "say --engine vllm too"),
        ({"method": "hapo"}, "temperature of its own"),
        ({"engine_url": "http://127.0.0.1:9"}, "could not be reached"),
    ):
        with pytest.raises(UsageError, match=what):
            run(base, **changes)
        assert not Path(base["out"]).exists()


# entropies, and what is given back ---------------------------------------------------------------------------------


def test_entropies_that_a_method_reads_come_from_the_trainer(
    server: FakeServer, policy: CausalLM, base: dict[str, Any]
) -> None:
    def drawn(engine: Engine, tokens: int) -> list[Any]:
        grader = Grader(Scorer([]), "", 1.0, 10)
        collector = Collector(policy, engine, WAYS["bias"], grader, 10, entropy_tokens=tokens)
        return [
            rollout.sampler_entropy[len(r.prefix) :]
            for r in [*requests_of(policy)]
            for rollout in collector.generate([r])
        ]

    engine = engine_at(policy, server)
    expected = drawn(NativeEngine(policy), 64)
    for a, b in zip(drawn(engine, 64), expected, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert all(math.isnan(value) for row in drawn(engine, 0) for value in row)
    setup = prepare(make_config(base, {"engine_url": server.url, "method": "earl"}), log=lambda _: None)
    setup.close()
    assert setup.collector.entropy_tokens == setup.micro_tokens
    assert not reads_entropies(registry.method("grpo"))


def test_what_was_taken_is_given_back(base: dict[str, Any], policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = FakeModule(monkeypatch)
    engine = make_engine(make_config(base), policy, Sampling())
    drawing = engine.generate(requests_of(policy), Sampling())
    next(drawing)
    drawing.close()  # type: ignore[attr-defined]
    assert not vllm.made[0].llm_engine.waiting
    candidates = Path(vllm.made[0].model.calls[0][1])
    assert candidates.is_dir()
    engine.close()
    assert not candidates.exists()
