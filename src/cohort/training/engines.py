"""The engine that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cohort.engine.agents import AgentEngines
from cohort.engine.base import Engine, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.connection import process
from cohort.engine.pool.here import copying, here
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import check_sendable
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.weights import Copies, Files, Shelf
from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.agents import AgentPolicies
from cohort.policies.causal_lm import CausalLM
from cohort.training.config import TrainConfig

HERE = frozenset({"localhost", "127.0.0.1", "::1"})


def make_engine(
    config: TrainConfig,
    policy: CausalLM | AgentPolicies,
    sampling: Sampling,
    log: Callable[[str], None] = lambda _: None,
    *,
    apart: bool = False,
) -> Engine:
    """The engine, ready to draw: what it is missing is found out here, before anything is drawn.

    Args:
        log: is told when a server has to be waited for, now and later, and when a worker is lost.
        apart: it draws with weights of its own, so that the policy may change while it does.

    Raises:
        UsageError: vLLM is not installed, no server answers, or it cannot do what the run needs.
    """
    asked = config.inference
    if isinstance(policy, AgentPolicies):
        members = {agent: each for agent, each in policy.members.items() if isinstance(each, CausalLM)}
        return AgentEngines({agent: make_engine(config, each, sampling, log) for agent, each in members.items()})
    if asked.engine == "native":
        if asked.workers > 1 or apart:
            return native_pool(config, policy, log)
        return NativeEngine(policy, slots=asked.slots, cache_mb=asked.cache_mb)
    from cohort.engine.vllm.engine import Backend, Route, VLLMEngine, check_sampling
    from cohort.engine.vllm.local import Local
    from cohort.engine.vllm.server import Server
    from cohort.engine.vllm.weights import Folder, Memory

    check_sampling(sampling)
    cuda = policy.device.type == "cuda"
    backend: Local | Server
    if asked.engine_url is None:
        shared = not policy.is_adapter and (asked.engine_weights == "memory" or (asked.engine_weights is None and cuda))
        backend = Local(
            policy,
            memory=asked.engine_memory,
            slots=asked.slots,
            masked=sampling.truncated,
            shared=shared,
            rank=config.policy.lora,
            seed=config.seed,
            trust_remote_code=config.policy.trust_remote_code,
        )
    else:
        backend = Server(
            asked.engine_url,
            concurrency=asked.slots,
            timeout=asked.engine_timeout,
            wait=asked.engine_wait,
            log=log,
            masked=sampling.truncated,
        )
        shared = not policy.is_adapter and (
            asked.engine_weights == "memory" or (asked.engine_weights is None and cuda and backend.transfer() == "nccl")
        )
        if not shared and asked.engine_folder is None and backend.host not in HERE:
            raise UsageError(
                f"{backend.place} may run on another machine: name a folder that both see with engine_folder, through "
                "which weights can pass"
            )
        backend.check(policy.name, adapters=policy.is_adapter, folder=not (policy.is_adapter or shared))
    made: Backend = backend
    route: Route = (
        Memory(policy, backend)
        if shared
        else Folder(policy, made, Path(asked.engine_folder) if asked.engine_folder else None)
    )
    return VLLMEngine(policy, made, route)


def native_pool(config: TrainConfig, policy: CausalLM, log: Callable[[str], None]) -> EnginePool:
    """Embedded engines with weights of their own: processes of this machine, or one in a thread of this process.

    Raises:
        UsageError: one of them cannot be started.
    """
    asked = config.inference
    if asked.workers == 1:
        make = copying(policy, slots=asked.slots, cache_mb=asked.cache_mb)
        return started(config, policy, [(here("sampler", make), Copies())], log)
    blueprint = blueprint_of(config, policy)
    shelf = Files()
    members = [(process(f"worker-{i}", blueprint), shelf) for i in range(asked.workers)]
    return started(config, policy, members, log)


def blueprint_of(config: TrainConfig, policy: CausalLM, **how: Any) -> Blueprint:
    """What another process makes an engine like the run's of."""
    return Blueprint.of(
        policy,
        lora=config.policy.lora,
        trust_remote_code=config.policy.trust_remote_code,
        form={
            "bos": config.policy.bos,
            "prompt_format": config.dataset.prompt_format,
            "special_tokens": config.rewards.special_tokens,
        },
        slots=config.inference.slots,
        cache_mb=config.inference.cache_mb,
        **{"device": str(policy.device), "threads": torch.get_num_threads(), **how},
    )


def started(
    config: TrainConfig, policy: CausalLM, members: Sequence[tuple[Link, Shelf]], log: Callable[[str], None], **how: Any
) -> EnginePool:
    """A pool all of whose members are there."""
    asked = config.inference
    pool = EnginePool(
        policy,
        members,
        slots=asked.slots,
        wait=asked.engine_wait,
        timeout=asked.engine_timeout,
        log=log,
        **{"check": lambda request, sampling: check_sendable(request), **how},
    )
    try:
        pool.start()
    except BaseException:
        pool.close()
        raise
    return pool


def check_engine(config: TrainConfig, method: Method) -> None:
    """The engine's options fit together, and it can draw as the method asks.

    Raises:
        UsageError: they do not, or it cannot.
    """
    asked = config.inference
    if asked.engine == "native":
        if asked.engine_url is not None:
            raise UsageError("--engine-url names a vLLM server: say --engine vllm too")
        return
    if method.stage("sampling").declared.processes:
        raise UsageError(
            f"'{method.name}' draws every token at a temperature of its own, or as a mixture, which vLLM cannot: "
            "use --engine native"
        )


def reads_entropies(method: Method) -> bool:
    """True if the method reads the entropies that rollouts were drawn with."""
    return "old_entropy" in method.needs(loss=False) | method.needs(loss=True)
