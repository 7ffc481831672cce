"""A stand-in for the module vllm, of its documented interface; see fakes.py."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engine.vllm.fakes import Model, SamplingParams


class FakeModule:
    """The module `vllm`, in place of the real one as long as a test runs.

    Attributes:
        made: the LLMs that were made, with their arguments.
        transfers: calls for weights from memory; infos: what the trainer's side was started with.
        servers: the models of servers by URL, for such transfers.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Any] = []
        self.transfers: list[str] = []
        self.infos: list[Any] = []
        self.servers: dict[str, Model] = {}
        owner = self

        class LoRARequest:
            def __init__(self, lora_name: str, lora_int_id: int, lora_path: str) -> None:
                assert lora_int_id >= 1
                self.lora_name, self.lora_int_id, self.lora_path = lora_name, lora_int_id, lora_path

        class LLMEngine:
            def __init__(self, model: Model) -> None:
                self.model, self.waiting = model, []

            def add_request(
                self, request_id: str, prompt: Any, params: SamplingParams, *, lora_request: Any = None
            ) -> None:
                assert params.output_kind == "final"
                assert prompt["type"] == "token"
                if lora_request is not None and lora_request.lora_name not in self.model.adapters:
                    self.model.adapters.clear()
                    self.model.adopt(lora_request.lora_name, lora_request.lora_path)
                self.waiting.append((request_id, prompt["prompt_token_ids"], params, lora_request))

            def has_unfinished_requests(self) -> bool:
                return bool(self.waiting)

            def abort_request(self, ids: list[str]) -> None:
                self.waiting = [w for w in self.waiting if w[0] not in ids]

            def step(self) -> list[Any]:
                # The last come first, so that the order of arrival is not that of the end.
                name, tokens, params, lora = self.waiting.pop()
                given = {f.name: getattr(params, f.name) for f in fields(params)}
                done = self.model.draw(lora and lora.lora_name, tokens, given)
                logprobs = [
                    {t: SimpleNamespace(logprob=lp), t + 1: SimpleNamespace(logprob=-9.0)}
                    for t, lp in zip(done["token_ids"], done["logp"], strict=True)
                ]
                output = SimpleNamespace(
                    token_ids=tuple(done["token_ids"]),
                    logprobs=logprobs,
                    finish_reason=done["finish_reason"],
                    stop_reason=done["stop_reason"],
                    sampling_mask=None if done["mask"] is None else SimpleNamespace(token_ids=done["mask"]),
                )
                return [SimpleNamespace(request_id=name, finished=True, outputs=[output])]

        class LLM:
            def __init__(self, model: str, **options: Any) -> None:
                known = {
                    "dtype",
                    "seed",
                    "max_num_seqs",
                    "gpu_memory_utilization",
                    "max_model_len",
                    "logprobs_mode",
                    "enable_prefix_caching",
                    "generation_config",
                    "trust_remote_code",
                    "return_sampling_mask",
                    "enable_lora",
                    "max_lora_rank",
                    "weight_transfer_config",
                }
                assert set(options) <= known
                masked = options.get("return_sampling_mask", False)
                self.model = Model(
                    Path(model), processed=options["logprobs_mode"] == "processed_logprobs", masked=masked
                )
                self.options, self.llm_engine = options, LLMEngine(self.model)
                self.model_config = SimpleNamespace(max_model_len=128)
                owner.made.append(self)

            def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> list[None]:
                assert method == "reload_weights"
                self.model.reload(kwargs["weights_path"])
                return [None]

            def reset_prefix_cache(self) -> bool:
                self.model.forget()
                return True

            def init_weight_transfer_engine(self, request: dict[str, Any]) -> None:
                assert request["init_info"] == {"packed": False}
                owner.transfers.append("init")

            def start_weight_update(self) -> None:
                owner.transfers.append("start")

            def update_weights(self, request: dict[str, Any]) -> None:
                state = request["update_info"]["state"]
                missing, unexpected = self.model.policy.model.load_state_dict(state, strict=False)
                assert not unexpected
                assert all("lm_head" in name for name in missing)
                self.model.version += 1
                owner.transfers.append("update")

            def finish_weight_update(self) -> None:
                owner.transfers.append("finish")

        class ModuleSource:
            def __init__(self, module: torch.nn.Module) -> None:
                self.module = module

        class Trainer:
            def __init__(self, client: Any, source: Any) -> None:
                self.client, self.source = client, source

            def send_weights(self) -> None:
                state = {name: p.detach().clone() for name, p in self.source.module.named_parameters()}
                self.client.start_weight_update()
                self.client.update_weights({"state": state})
                self.client.finish_weight_update()

            def shutdown(self) -> None:
                owner.transfers.append("shutdown")

        class Factory:
            @staticmethod
            def trainer_init(*, init_info: Any, client: Any, source: Any) -> Trainer:
                client.init_weight_transfer_engine({"packed": False})
                assert init_info.rank == 0
                owner.infos.append(init_info)
                return Trainer(client, source)

        class Remote:
            """Has the server at a URL take over the weights that the trainer's side sends."""

            def __init__(self, base_url: str) -> None:
                self.model = owner.servers[base_url]

            def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
                owner.transfers.append("init")

            def start_weight_update(self) -> None:
                owner.transfers.append("start")

            def update_weights(self, update_info: dict[str, Any]) -> None:
                self.model.policy.model.load_state_dict(update_info["state"], strict=False)
                self.model.version += 1
                owner.transfers.append("update")

            def finish_weight_update(self, weight_version: str | None = None) -> None:
                owner.transfers.append("finish")

        def module(name: str, **content: Any) -> ModuleType:
            made = ModuleType(name)
            vars(made).update(content)
            monkeypatch.setitem(sys.modules, name, made)
            return made

        module("vllm", LLM=LLM, SamplingParams=SamplingParams, __version__="0.33.0", __path__=[])
        module("vllm.inputs", tokens_input=lambda ids: {"type": "token", "prompt_token_ids": ids})
        module("vllm.sampling_params", RequestOutputKind=SimpleNamespace(FINAL_ONLY="final"))
        module("vllm.config", WeightTransferConfig=lambda backend: SimpleNamespace(backend=backend))
        module("vllm.lora", __path__=[])
        module("vllm.lora.request", LoRARequest=LoRARequest)
        module("vllm.distributed", __path__=[])
        module(
            "vllm.distributed.weight_transfer",
            ModuleSource=ModuleSource,
            WeightTransferTrainerFactory=Factory,
            HTTPVLLMWeightSyncClient=Remote,
            __path__=[],
        )
        for name, cls in (("ipc_engine", "IPCTrainerInitInfo"), ("nccl_engine", "NCCLTrainerInitInfo")):
            module(f"vllm.distributed.weight_transfer.{name}", **{cls: lambda **given: SimpleNamespace(**given)})
