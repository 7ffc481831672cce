"""What another process makes an engine of, which draws as one of this process would."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cohort.engine.base import Engine
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.weights import take_over
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.loading import check_name

# transformers loads no two models at once in two threads: what it patches meanwhile is of the whole process.
LOADING = threading.Lock()


@dataclass(frozen=True)
class Blueprint:
    """A policy and its engine, to be made anew.

    Attributes:
        name: model folder or hub id that the policy is loaded from.
        given: the model and its tokenizer, pickled, where they came as objects.
        dtype: of the weights.
        device: that the policy is put on.
        form: how texts become tokens, as for `CausalLM`.
        lora: rank of low-rank adapters; 0 for none.
        slots, cache_mb: as for `NativeEngine`.
        threads: of the processor that passes take; 0 leaves torch's choice.
        vllm: arguments of `cohort.engine.vllm.local.Local`, where vLLM draws; the policy then only holds the weights for it.
    """

    name: str
    given: bytes | None
    dtype: torch.dtype
    device: str = "cpu"
    trust_remote_code: bool = False
    form: Mapping[str, Any] = field(default_factory=dict)
    lora: int = 0
    slots: int = 128
    cache_mb: float | None = None
    threads: int = 0
    vllm: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, policy: CausalLM, *, lora: int = 0, **how: Any) -> Blueprint:
        """Of a policy that is there.

        Args:
            how: what is not the policy's own.

        Raises:
            UsageError: it came as an object that cannot be sent.
        """
        given: bytes | None = None
        try:
            check_name(policy.name)
        except UsageError:
            try:
                given = pickle.dumps((copy.deepcopy(policy.model).to("cpu"), policy.renderer.tokenizer))
            except Exception as error:
                raise UsageError(
                    f"{policy.name or 'the model'} cannot be sent to other processes ({type(error).__name__}: {error}): save "
                    "it into a folder with save_pretrained, its tokenizer too, and give that as the model"
                ) from error
        return cls(policy.name, given, policy.dtype, lora=lora, **how)

    def policy(self) -> CausalLM:
        """The policy; its weights are those that it was loaded with.

        Raises:
            UsageError: it cannot be loaded here.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.given is not None:
            model, tokenizer = pickle.loads(self.given)
            return CausalLM(model.to(self.device), tokenizer, name=self.name, **self.form)
        with LOADING:
            policy = CausalLM.load(
                self.name,
                device=torch.device(self.device),
                dtype=self.dtype,
                trust_remote_code=self.trust_remote_code,
                **self.form,
            )
        if self.lora:
            policy.add_lora(self.lora)
        return policy

    def host(self) -> EngineHost:
        """An engine over a policy of its own."""
        policy = self.policy()
        if self.vllm is None:
            engine: Engine = NativeEngine(policy, slots=self.slots, cache_mb=self.cache_mb)
        else:
            from cohort.engine.vllm.engine import VLLMEngine
            from cohort.engine.vllm.local import Local
            from cohort.engine.vllm.weights import Folder

            backend = Local(
                policy, slots=self.slots, rank=self.lora, trust_remote_code=self.trust_remote_code, **self.vllm
            )
            engine = VLLMEngine(policy, backend, Folder(policy, backend))
        return EngineHost(engine, lambda weights: take_over(policy, weights))
