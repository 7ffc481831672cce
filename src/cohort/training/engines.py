"""The engine that a configuration asks for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cohort.engine.agents import AgentEngines
from cohort.engine.base import Copying, Engine, Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.connection import process
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import check_sendable
from cohort.engine.pool.pool import EnginePool
from cohort.engine.pool.weights import Elsewhere, Files, Shelf
from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.agents import AgentPolicies
from cohort.policies.causal_lm import CausalLM
from cohort.training.config import TrainConfig
from cohort.types import Request

if TYPE_CHECKING:
    from cohort.engine.vllm.engine import VLLMEngine
    from cohort.engine.vllm.local import Local
    from cohort.engine.vllm.server import Server

HERE = frozenset({"localhost", "127.0.0.1", "::1"})


def make_engine(
    config: TrainConfig,
    policy: CausalLM | AgentPolicies,
    sampling: Sampling,
    log: Callable[[str], None] = lambda _: None,
) -> Engine:
    """The engine, ready to draw: what it is missing is found out here, before anything is drawn.

    Args:
        log: is told when a server has to be waited for, now and later, and when a worker is lost.

    Raises:
        UsageError: vLLM or Ray is not installed, no server answers, a worker cannot be started, or one of them cannot do what
            the run needs.
    """
    asked = config.inference
    if isinstance(policy, AgentPolicies):
        members = {agent: each for agent, each in policy.members.items() if isinstance(each, CausalLM)}
        made = {agent: make_engine(config, each, sampling, log) for agent, each in members.items()}
        return AgentEngines(made)
    if asked.engine == "vllm" or asked.worker_engine == "vllm" or asked.engine_url:
        from cohort.engine.vllm.params import check_sampling

        check_sampling(sampling)
    if asked.engine == "ray":
        return ray_pool(config, policy, sampling, log)
    if asked.engine == "native":
        if asked.workers > 1:
            return native_pool(config, policy, log)
        return NativeEngine(policy, slots=asked.slots, cache_mb=asked.cache_mb)
    if len(asked.engine_url) > 1:
        return vllm_pool(config, policy, sampling, log)
    return vllm_engine(config, policy, sampling, log)


def vllm_engine(config: TrainConfig, policy: CausalLM, sampling: Sampling, log: Callable[[str], None]) -> VLLMEngine:
    """vLLM in this process, or a server of it, that is sent the policy's weights as they are.

    Raises:
        UsageError: as `make_engine`.
    """
    from cohort.engine.vllm.engine import Route, VLLMEngine
    from cohort.engine.vllm.server import Server
    from cohort.engine.vllm.weights import Folder, Memory

    asked = config.inference
    cuda = policy.device.type == "cuda"
    backend: Local | Server
    if not asked.engine_url:
        shared = not policy.is_adapter and (asked.engine_weights == "memory" or (asked.engine_weights is None and cuda))
        backend = local_vllm(config, policy, sampling, shared=shared)
    else:
        backend = Server(
            asked.engine_url[0],
            concurrency=asked.slots,
            timeout=asked.engine_timeout,
            wait=asked.engine_wait,
            log=log,
            masked=sampling.truncated,
        )
        shared = not policy.is_adapter and (
            asked.engine_weights == "memory" or (asked.engine_weights is None and cuda and backend.transfer() == "nccl")
        )
        if not shared:
            check_folder(config, backend)
        backend.check(policy.name, adapters=policy.is_adapter, folder=not (policy.is_adapter or shared))
    route: Route = Memory(policy, backend) if shared else Folder(policy, backend, folder_of(config))
    return VLLMEngine(policy, backend, route)


def local_vllm(config: TrainConfig, policy: CausalLM, sampling: Sampling, *, shared: bool) -> Local:
    """vLLM in this process; `shared`: weights will come through CUDA IPC."""
    from cohort.engine.vllm.local import Local

    return Local(
        policy,
        memory=config.inference.engine_memory,
        slots=config.inference.slots,
        masked=sampling.truncated,
        shared=shared,
        rank=config.policy.lora,
        seed=config.seed,
        trust_remote_code=config.policy.trust_remote_code,
    )


def check_folder(config: TrainConfig, server: Server) -> None:
    """A server sees the folder through which weights pass.

    Raises:
        UsageError: it may not.
    """
    if config.inference.engine_folder is None and server.host not in HERE:
        raise UsageError(
            f"{server.place} may run on another machine: name a folder that both see with engine_folder, through which "
            "weights can pass"
        )


def folder_of(config: TrainConfig) -> Path | None:
    """Where weights pass, if that is said."""
    return Path(config.inference.engine_folder) if config.inference.engine_folder else None


def native_pool(config: TrainConfig, policy: CausalLM, log: Callable[[str], None]) -> EnginePool:
    """Embedded engines in processes of this machine.

    Raises:
        UsageError: one of them cannot be started.
    """
    asked, cuda = config.inference, policy.device.type == "cuda"
    shelf, threads = Files(), max(1, torch.get_num_threads() // asked.workers)
    blueprint = blueprint_of(config, policy, device="cpu", threads=threads)
    members: list[tuple[Link, Shelf]] = []
    for i in range(asked.workers):
        # On GPUs in turn, the trainer's own last.
        gpu = f"cuda:{((policy.device.index or 0) + 1 + i) % torch.cuda.device_count()}" if cuda else "cpu"
        members.append((process(f"worker-{i}", replace(blueprint, device=gpu)), shelf))
    return started(config, policy, members, log)


def vllm_pool(config: TrainConfig, policy: CausalLM, sampling: Sampling, log: Callable[[str], None]) -> EnginePool:
    """vLLM's servers.

    Raises:
        UsageError: as `make_engine`.
    """
    from cohort.engine.vllm.params import check_request

    members, copies = server_members(config, policy, sampling)
    check = lambda request, sampling: check_request(request)  # noqa: E731
    return started(config, policy, members, log, exact=False, check=check, copies=copies)


def server_members(
    config: TrainConfig, policy: CausalLM, sampling: Sampling
) -> tuple[list[tuple[Link, Shelf]], list[Copying]]:
    """A member for each server that is named, and their copies of the weights."""
    from cohort.engine.pool.servers import Asked, Copy, server
    from cohort.engine.vllm.server import Server
    from cohort.engine.vllm.weights import Checkpoints

    asked = config.inference
    how = {"memory": True, "folder": False}.get(asked.engine_weights or "")
    memory = False if how is None and policy.device.type != "cuda" else how
    shelf = Checkpoints(folder_of(config)) if memory is not True else Elsewhere()
    members: list[tuple[Link, Shelf]] = []
    copies: list[Copying] = []
    for url in asked.engine_url:
        if memory is not True:
            check_folder(config, Server(url))
        copy = Copy(policy)
        members.append(
            (
                server(
                    f"server-{len(members)}",
                    copy,
                    Asked(url, asked.slots, asked.engine_timeout, sampling.truncated, memory),
                ),
                shelf,
            )
        )
        copies.append(copy)
    return members, copies


def ray_pool(config: TrainConfig, policy: CausalLM, sampling: Sampling, log: Callable[[str], None]) -> EnginePool:
    """Engines in Ray's actors, and the vLLM servers that are named beside.

    Raises:
        UsageError: as `make_engine`.
    """
    from cohort.engine.pool.ray import Cluster, Store, actor
    from cohort.engine.vllm.params import check_request

    asked, workers = config.inference, config.inference.workers
    drawn_by_vllm = asked.worker_engine == "vllm"
    cluster = Cluster(asked.ray_address, workers=workers)
    try:
        # A GPU each, or the shares that there are.
        gpus = min(1.0, cluster.has("GPU") / workers)
        vllm = {"memory": asked.engine_memory, "masked": sampling.truncated, "seed": config.seed}
        blueprint = blueprint_of(
            config,
            policy,
            # vLLM has the GPU; the policy beside it only holds the weights.
            device="cuda" if gpus and not drawn_by_vllm else "cpu",
            threads=max(1, torch.get_num_threads() // (1 if asked.ray_address else workers)),
            vllm=vllm if drawn_by_vllm else None,
        )
        store = Store(cluster)
        members: list[tuple[Link, Shelf]] = [
            (actor(f"ray-{i}", cluster, blueprint, gpus=gpus), store) for i in range(workers)
        ]
        servers, copies = server_members(config, policy, sampling) if asked.engine_url else ([], [])
        native = not (drawn_by_vllm or servers)

        def check(request: Request, sampling: Sampling) -> None:
            if native:
                check_sendable(request)
            else:
                check_request(request)

        # Of a cluster that grows, some may come later.
        how = {"exact": native, "check": check, "copies": copies, "after": cluster.close}
        return started(config, policy, members + servers, log, least=1 if asked.ray_address else None, **how)
    except BaseException:
        cluster.close()
        raise


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
        **how,
    )


def started(
    config: TrainConfig,
    policy: CausalLM,
    members: Sequence[tuple[Link, Shelf]],
    log: Callable[[str], None],
    *,
    least: int | None = None,
    **how: Any,
) -> EnginePool:
    """A pool of which so many members are there; None: all."""
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
        pool.start(least)
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
    if asked.engine == "native" and asked.engine_url:
        raise UsageError("--engine-url names a vLLM server: say --engine vllm too")
    if asked.engine != "ray" and (asked.worker_engine != "native" or asked.ray_address is not None):
        key = "worker_engine" if asked.worker_engine != "native" else "ray_address"
        raise UsageError(f"{key} is of workers that Ray places: say --engine ray too")
    if asked.engine == "vllm" and asked.workers > 1:
        raise UsageError(
            "--workers counts engines that cohort starts: name each vLLM server with --engine-url, or say --engine ray "
            "--worker-engine vllm"
        )
    if asked.worker_engine == "vllm" and asked.ray_address is None and importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "--worker-engine vllm needs vLLM in this environment, whose workers Ray starts on this machine: pip install vllm, "
            "leave --worker-engine out, or name a cluster that has it with --ray-address"
        )
    by_vllm = asked.engine == "vllm" or asked.worker_engine == "vllm" or bool(asked.engine_url)
    if by_vllm and method.stage("sampling").declared.processes:
        raise UsageError(
            f"'{method.name}' draws every token at a temperature of its own, or as a mixture, which vLLM cannot: "
            "use --engine native"
        )


def reads_entropies(method: Method) -> bool:
    """True if the method reads the entropies that rollouts were drawn with."""
    return "old_entropy" in method.needs(loss=False) | method.needs(loss=True)
