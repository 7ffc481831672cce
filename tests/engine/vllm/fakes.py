"""Stand-ins for vLLM, of its documented interface: a model and a server; the module is in fake_module.py.

Both draw with the embedded engine from a tiny model, and are as strict as vLLM: what it does not know, or does not have
switched on, they refuse.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.types import Prompt, Request


@dataclass
class SamplingParams:
    """Of vllm.SamplingParams, the arguments that change what is drawn or returned."""

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    output_kind: Any = None
    logit_bias: dict[int, float] | None = None

    def __post_init__(self) -> None:
        assert self.n == 1
        assert self.seed is None or -(2**63) <= self.seed < 2**63
        assert 0 < self.top_p <= 1
        assert self.top_k >= -1
        assert 0 <= self.min_tokens <= self.max_tokens
        assert not (self.stop and not self.detokenize)


LOADING = threading.Lock()


def loaded(folder: str) -> CausalLM:
    """The model of a folder; transformers loads no two in two threads."""
    with LOADING:
        return CausalLM.load(folder, device=torch.device("cpu"), dtype=torch.float32)


class Model:
    """What vLLM holds: weights, adapters, and a prefix cache that belongs to some of the weights.

    Attributes:
        calls: what was asked of it, in order.
        deaf: it ignores new weights.
        stuck: pattern of the names of those that it ignores, while it takes the others.
    """

    def __init__(
        self, folder: Path, *, processed: bool = True, masked: bool = False, defaults: dict[str, Any] | None = None
    ) -> None:
        self.folder, self.processed, self.masked, self.deaf = str(folder), processed, masked, False
        self.defaults, self.stuck = defaults or {}, ""
        self.calls: list[tuple[str, Any]] = []
        self.lock = threading.RLock()
        self.start()

    def start(self) -> None:
        """As it comes up: the weights that it was started with, and no adapters."""
        self.policy = loaded(self.folder)
        self.adapters: dict[str, CausalLM] = {}
        self.cached: Any = None
        self.version = 0

    def reload(self, path: str) -> None:
        assert Path(path).is_dir(), path
        with self.lock:
            self.calls.append(("reload", path))
            state = self.policy.model.state_dict()
            kept = {n: v.clone() for n, v in state.items() if self.stuck and re.search(self.stuck, n)}
            if not self.deaf:
                with LOADING:
                    self.policy.load_weights(Path(path))
            self.policy.model.load_state_dict(kept, strict=False)
            self.version += 1

    def forget(self) -> None:
        with self.lock:
            self.calls.append(("forget", None))
            self.cached = None

    def adopt(self, name: str, path: str) -> None:
        with self.lock:
            self.calls.append(("adopt", name))
            whole = loaded(self.folder)
            whole.roles.models["policy"] = PeftModel.from_pretrained(whole.model, path).eval()
            self.adapters[name] = whole

    def draw(self, model: str | None, tokens: Sequence[int], given: dict[str, Any]) -> dict[str, Any]:
        """token_ids, logprobs, finish_reason, stop_reason, mask."""
        params = SamplingParams(**{**self.defaults, **given})
        if self.masked and (params.temperature <= 0 or params.top_k <= 0):
            raise ValueError("sampling distribution replay requires temperature > 0 and top_k > 0")
        with self.lock:
            policy = self.adapters.get(model or "", self.policy)
            assert self.cached in (None, self.version), "drawn with a prefix cache of older weights"
            self.cached = self.version
            stops = frozenset(params.stop_token_ids or ())
            sampling = Sampling(
                params.temperature,
                params.top_p,
                max(0, params.top_k),
                params.min_p,
                stops if params.ignore_eos else stops | policy.renderer.stop_ids,
                params.min_tokens,
                tuple(params.stop or ()),
                {int(k): v for k, v in (params.logit_bias or {}).items()},
            )
            request = Request(Prompt("", "", tuple(tokens), ""), tuple(tokens), params.seed or 0, params.max_tokens)
            ((_, done),) = NativeEngine(policy).generate([request], sampling)
            logp = done.sampled_logp
            if not self.processed:
                sequences = Sequences((torch.tensor(tokens),), (torch.tensor(done.tokens),))
                with torch.no_grad():
                    logp = policy.log_probs(sequences, width=len(done.tokens))["logp"][0].tolist()
        stop: Any = done.stop
        if done.finished and stop is None and done.tokens[-1] != policy.renderer.tokenizer.eos_token_id:
            stop = done.tokens[-1]
        mask = None
        if self.masked:
            assert done.candidates is not None
            bits = [k if k.dtype == np.int32 else np.flatnonzero(np.unpackbits(k)) for k in done.candidates]
            mask = [k.tolist()[::-1] for k in bits]
        return {
            "token_ids": done.tokens,
            "logp": logp,
            "finish_reason": "stop" if done.finished else "length",
            "stop_reason": stop,
            "mask": mask,
        }


class Plain(str):
    """An answer that is no JSON, and says no type, as vLLM 0.32 gives for adapters."""


COMPLETION_KEYS = {f.name for f in fields(SamplingParams)} - {"detokenize", "output_kind"}


@dataclass
class FakeServer:
    """A vLLM server, as `vllm serve` with the switches of `Model` and these.

    Attributes:
        dev: VLLM_SERVER_DEV_MODE; runtime_lora: VLLM_ALLOW_RUNTIME_LORA_UPDATING.
        faults: what goes wrong with the next draws: a status, "drop" (of the connection), "garbage", "short", "restart"
            (the connection drops, and the server comes up as it was started), or a number of seconds as a float.
    """

    model: Model
    dev: bool = True
    runtime_lora: bool = True
    key: str | None = None
    ids: tuple[str, ...] = ()
    longest: int = 128
    faults: list[Any] = field(default_factory=list)
    url: str = ""
    gone: bool = False

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return self.model.calls

    def cards(self) -> list[dict[str, Any]]:
        ids = self.ids or (self.model.folder,)
        base = [{"id": i, "root": i, "parent": None, "max_model_len": self.longest} for i in ids]
        return base + [{"id": name, "root": "", "parent": ids[0]} for name in self.model.adapters]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        model = self.model
        if path == "/v1/models":
            return 200, {"object": "list", "data": self.cards()}
        if path in ("/v1/completions", "/inference/v1/generate"):
            return self.completion(path, body)
        if path == "/get_world_size" and self.dev:
            return 200, {"world_size": 2}
        if path in ("/collective_rpc", "/reset_prefix_cache", "/server_info?config_format=json") and self.dev:
            if path.startswith("/server_info"):
                return 200, {"vllm_config": {"weight_transfer_config": None}}
            if path == "/reset_prefix_cache":
                model.forget()
                return 200, {"success": True}
            if not body.get("method"):
                return 400, {"error": {"message": "Missing 'method' in request body", "code": 400}}
            assert body["method"] == "reload_weights"
            model.reload(body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter") and self.runtime_lora:
            name = (body or {}).get("lora_name")
            if not name:
                return 400, {"error": {"message": "lora_name is required", "code": 400}}
            if path == "/v1/load_lora_adapter":
                model.adopt(name, body["lora_path"])
            elif model.adapters.pop(name, None) is None:
                return 404, {"error": {"message": f"The lora adapter '{name}' cannot be found.", "code": 404}}
            done = "added" if path == "/v1/load_lora_adapter" else "removed"
            return 200, Plain(f"Success: LoRA adapter '{name}' {done} successfully.")
        return 404, {"detail": "Not Found"}

    def completion(self, path: str, body: Any) -> tuple[int, Any]:
        known = {card["id"] for card in self.cards()}
        if body.pop("model") not in known:
            return 404, {"error": {"message": "The model does not exist.", "type": "NotFoundError", "code": 404}}
        return self._drawn(path, body)

    def _drawn(self, path: str, body: Any) -> tuple[int, Any]:
        model, name = self.model, next(reversed(self.model.adapters), None)
        if path == "/v1/completions":
            prompt, ids = body.pop("prompt"), body.pop("return_token_ids", False)
            unknown = set(body) - COMPLETION_KEYS
            params = body
        else:
            prompt, ids, params = body.pop("token_ids"), True, body.pop("sampling_params")
            unknown = set(body)
        assert not unknown, unknown
        if len(prompt) + params["max_tokens"] > self.longest:
            return 400, {"error": {"message": f"This model's maximum context length is {self.longest} tokens."}}
        try:
            done = model.draw(name, prompt, params)
        except ValueError as error:
            return 400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}}
        choice = {
            "index": 0,
            "finish_reason": done["finish_reason"],
            "stop_reason": done["stop_reason"],
            "token_ids": done["token_ids"] if ids else None,
        }
        if path == "/v1/completions":
            choice |= {"text": "", "logprobs": {"token_logprobs": done["logp"]}}
        else:
            content = [{"token_id": t, "logprob": lp} for t, lp in zip(done["token_ids"], done["logp"], strict=True)]
            choice |= {"logprobs": {"content": content}, "sampling_mask": done["mask"]}
        return 200, {"choices": [choice]}


@contextmanager
def serving(server: FakeServer, port: int = 0) -> Iterator[FakeServer]:
    """The server at a port of this machine, by default a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.handle_one()

        def do_POST(self) -> None:
            self.handle_one()

        def handle_one(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else None
            status, value = 200, None
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                status, value = 401, {"error": "Unauthorized"}
            else:
                draws = self.path in ("/v1/completions", "/inference/v1/generate")
                fault = server.faults.pop(0) if draws and server.faults else None
                if isinstance(fault, float):
                    time.sleep(fault)
                if fault in ("drop", "restart") or server.gone:
                    if fault == "restart":
                        server.model.start()
                    self.close_connection = True
                    return
                if isinstance(fault, int):
                    status, value = fault, {"error": {"message": "not now", "code": fault}}
                elif fault == "garbage":
                    value = {"choices": []}
                else:
                    status, value = server.answer(self.command, self.path, body)
                if fault == "short":
                    value["choices"][0]["token_ids"] = value["choices"][0]["token_ids"][:-1]
            data = value.encode() if isinstance(value, Plain) else json.dumps(value).encode()
            self.send_response(status)
            if not isinstance(value, Plain):
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        server.gone = True
        http.shutdown()
        http.server_close()
