"""vLLM as an engine, against a real server on the CPU: `make test-vllm`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from cohort.engine.base import Sampling, context_of
from cohort.engine.vllm import weights
from cohort.engine.vllm.engine import VLLMEngine
from cohort.engine.vllm.server import Server
from cohort.engine.vllm.weights import Folder
from cohort.policies.causal_lm import CausalLM
from cohort.policies.passes import log_probs
from cohort.rollouts.collect import Collector
from cohort.training import build, engines
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import train
from tests.engine.vllm.test_engine import free_port
from tests.helpers import prompt_of, request_of
from tests.model_folders import tokenizer_of

PYTHON = os.environ.get("COHORT_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="COHORT_VLLM_PYTHON names no interpreter with vLLM: see make test-vllm"),
]
# vLLM's attention on CPUs has no heads of fewer than 32.
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def model(out: Path, *, tied: bool) -> Path:
    """The folder of a random model of 0.1 million parameters."""
    words = tokenizer_of()
    torch.manual_seed(1)
    more = {"num_key_value_heads": 1, "max_position_embeddings": 256, "tie_word_embeddings": tied}
    made = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(words), eos_token_id=words.eos_token_id, **SIZES, **more))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    made.save_pretrained(out)
    words.save_pretrained(out)
    return out


class Real:
    """A server of a model at a port of its own, which may be killed and started again.

    Attributes:
        url: of it; it may still be starting.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log, self.port = folder, log, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        switches = {
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
        }
        options = "--logprobs-mode processed_logprobs --dtype float32 --enforce-eager --max-model-len 256"
        with self.log.open("a") as out:
            self.process = subprocess.Popen(
                [
                    *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder)),
                    *("--port", str(self.port), *options.split(), "--max-num-seqs", "16"),
                    *("--enable-lora", "--max-lora-rank", "8"),
                ],
                env={**here, **switches},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[Real]:
    """A server of the model, which may still be starting."""
    server = Real(folder, log)
    try:
        yield server
    finally:
        server.kill(signal.SIGTERM)


def mismatch(engine: VLLMEngine, policy: CausalLM) -> float:
    """Mean difference (nats) of vLLM's log-probabilities from the trainer's, of four rollouts."""
    requests = [request_of(prompt_of(policy, text), seed=k, count=16) for k in range(2) for text in ("1 + 2 =", "Lily")]
    done = dict(engine.generate(requests, Sampling()))
    rows = [done[place] for place in range(len(requests))]
    actions = policy.actions_after([list(context_of(request)) for request in requests], [row.tokens for row in rows])
    own = log_probs(policy, actions, width=16, temperature=1.0, micro_tokens=4096)["logp"].tolist()
    apart = [
        abs(a - b) for row, ours in zip(rows, own, strict=True) for a, b in zip(row.sampled_logp, ours, strict=False)
    ]
    assert len(apart) >= len(requests)
    return sum(apart) / len(apart)


@pytest.mark.parametrize("tied", [False, True])
def test_every_update_reaches_a_real_server(tmp_path: Path, tied: bool) -> None:
    """An adapter and then whole weights, three updates of each."""
    folder = model(tmp_path / "model", tied=tied)
    with serving(folder, tmp_path / "server.log") as server:
        for rank in (4, 0):
            policy = CausalLM.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)
            if rank:
                policy.add_lora(rank)
            backend = Server(server.url, log=print)
            backend.check(policy.name, adapters=policy.is_adapter, folder=not policy.is_adapter)
            engine = VLLMEngine(policy, backend, Folder(policy, backend))
            assert mismatch(engine, policy) < 1e-5
            found = []
            for _ in range(3):
                with torch.no_grad():
                    for parameter in policy.trainable():
                        parameter.add_(0.05 * torch.randn_like(parameter))
                assert mismatch(engine, policy) > 1e-4  # of the weights before
                engine.sync()
                found.append(mismatch(engine, policy))
            print(f"tied {tied}, rank {rank}: mismatch {', '.join(f'{each:.1e}' for each in found)}")
            assert max(found) < 1e-5
            engine.close()


def test_a_tied_output_layer_that_does_not_follow_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent under one name, as transformers writes it, it does not."""
    monkeypatch.setattr(weights, "_with_both_ends", lambda policy: None)
    folder = model(tmp_path / "model", tied=True)
    policy = CausalLM.load(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    with serving(folder, tmp_path / "server.log") as server:
        backend = Server(server.url, log=print)
        backend.check(policy.name, adapters=False, folder=True)
        engine = VLLMEngine(policy, backend, Folder(policy, backend))
        assert mismatch(engine, policy) < 1e-5
        with torch.no_grad():
            for parameter in policy.trainable():
                parameter.add_(1e-3 * torch.randn_like(parameter))
        engine.sync()
        assert mismatch(engine, policy) > 1e-4
        assert engine.not_taken_over() == ["model.embed_tokens.weight"]
        engine.close()


@pytest.mark.parametrize("pool", [False, True])
def test_a_run_outlives_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: bool) -> None:
    """It is killed in the middle of a step, and started again a minute later with the weights that it had at first.

    Args:
        pool: it is drawn with as one of several would be.
    """
    folder = model(tmp_path / "model", tied=True)
    if pool:
        monkeypatch.setattr(build, "make_engine", engines.vllm_pool)
    steps, back = 6, threading.Event()
    with serving(folder, tmp_path / "server.log") as server:

        def anew() -> None:
            time.sleep(60)
            server.start()
            back.set()

        before, turns = Collector.generate, [0]

        def generate(self: Collector, *given: Any, **how: Any) -> Any:
            turns[0] += 1
            if turns[0] == 3:
                # Requests of this step are on their way when it goes.
                threading.Timer(0.05, server.kill).start()
                threading.Thread(target=anew, daemon=True).start()
            return before(self, *given, **how)

        monkeypatch.setattr(Collector, "generate", generate)
        config = make_config(
            {
                "model": str(folder),
                "data": [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)],
                "reward": ["format:[0-4]", "0.5*length"],
                "steps": steps,
                "prompts_per_step": 4,
                "group_size": 4,
                "max_new_tokens": 64,
                "lr": 1e-3,
                "engine": "vllm",
                "engine_url": server.url,
                "engine_wait": 600,
                "tensorboard": False,
                "out": str(tmp_path / "run"),
            }
        )
        result = train(config, display=Display(quiet=True))
    assert back.is_set()
    assert len(result.metrics) == steps
    found = [step["mismatch"] for step in result.metrics]
    print(f"pool {pool}: mismatch {', '.join(f'{each:.1e}' for each in found)}")
    assert max(found) < 1e-5
    if pool:
        assert result.metrics[-1]["engine/restarts"] == 1
        assert result.metrics[-1]["engine/redrawn"] >= 1
