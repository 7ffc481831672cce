"""Members of a pool in Ray's actors, on this machine or on those of a cluster.

Ray places the actors, starts them again when they, or their machines, are gone, and carries the weights in its object store:
the driver owns them, so that they outlive every actor.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.engine.pool.blueprint import Blueprint
from cohort.engine.pool.here import Queues, serve_queues
from cohort.engine.pool.link import LOOK, Link
from cohort.engine.pool.messages import Command, Reply
from cohort.engine.pool.weights import changing
from cohort.errors import EngineError, UsageError
from cohort.lifeline import Scratch
from cohort.policies.causal_lm import CausalLM

# Seconds that an actor holds a question for what it has to say, before it answers that there is nothing.
HOLD = 5.0
# Seconds that an actor may take to be placed and started before the reason is looked for.
PLACING = 30.0
# Seconds that a cluster may take to answer.
ANSWERING = 10.0


# What Ray writes beside a run, and sends to its makers: it is told before it is imported.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def import_ray() -> Any:
    """Ray, told to be quiet where the user's environment says nothing else.

    Raises:
        UsageError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray here ({error}): pip install 'cohort-rl[ray]'") from error


class Cluster:
    """Ray, as long as a run needs it.

    Args:
        address: of a cluster that is there ("auto" for one that was started on this machine); None starts one on this machine,
            which ends with the run.
        workers: actors that will be asked for.
        folder: that one which is started here keeps its files in; None makes one that ends with the run.

    Raises:
        UsageError: Ray is not installed, or no cluster answers there.
    """

    def __init__(self, address: str | None, *, workers: int, folder: Path | None = None) -> None:
        self.ray = import_ray()
        self._own_folder: Scratch | None = None
        self._joined = self.ray.is_initialized()
        if self._joined:
            return
        if address is not None:
            _check_address(address)
        how: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address is None:
            if folder is None:
                # Its sockets stand there, whose names must be short.
                self._own_folder = Scratch("cohort-ray-", Path("/tmp"))
                folder = self._own_folder.path
            cores = os.cpu_count() or 1
            how |= {"address": "local", "include_dashboard": False, "num_cpus": max(cores, workers)}
            how |= {"_temp_dir": str(folder)}
        else:
            how |= {"address": address}
        try:
            self.ray.init(**how)
        except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
            self.close()
            if address is None:
                raise UsageError(f"Ray cannot be started on this machine: {_first_line(error)}") from error
            raise UsageError(
                f"the Ray cluster at {address} cannot be joined: {_first_line(error)}. It must be of the same Ray "
                f"({self.ray.__version__}) and Python; where it asks for a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN"
            ) from error

    def has(self, what: str) -> float:
        """Of a resource, as Ray calls it, what the cluster has in all."""
        return float(self.ray.cluster_resources().get(what, 0.0))

    def said(self) -> str:
        """What it has, and what of that is free."""
        free = self.ray.available_resources()
        return "; ".join(f"{self.has(what):g} {what} there, {free.get(what, 0.0):g} free" for what in ("CPU", "GPU"))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if not self._joined:
            with contextlib.suppress(Exception):
                self.ray.shutdown()
        if self._own_folder is not None:
            self._own_folder.close()


def _check_address(address: str) -> None:
    """Something answers at the address of a cluster: Ray would look for it for minutes.

    Raises:
        UsageError: nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdecimal():
        raise UsageError(
            f"--ray-address {address}: write it as in 10.0.0.1:6379, or auto for a cluster of this machine"
        )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWERING).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster answers at {address}: {error}; `ray start --head` begins one") from error


class Host:
    """What an actor is: a host that draws in a thread, and the two ways to it, a thread each.

    Ray starts an actor anew with the arguments that it was first made with; it has none, and is told at every beginning.
    """

    def __init__(self) -> None:
        self._queues: Queues | None = None

    def begin(self, blueprint: Blueprint) -> None:
        """Be a host, which is not one yet."""
        self._queues = Queues()
        serve_queues(self._queues, blueprint.host, "ray")

    def tell(self, commands: Sequence[Command]) -> None:
        """Take commands, in their order."""
        self._begun().send(commands)

    def hear(self) -> list[Reply]:
        """What there is to say, as soon as there is something; nothing after a while."""
        queues = self._begun()
        replies = list(queues.replies(HOLD))
        while replies and (more := queues.replies(0.0)):
            replies += more
        return replies

    def _begun(self) -> Queues:
        if self._queues is None:
            raise EOFError("it has started anew")
        return self._queues


class _ActorWire:
    """A link's Wire."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor
        self._question = self._ask()

    def _ask(self) -> Any:
        return self.actor.hear.options(concurrency_group="hear").remote()

    def send(self, commands: Sequence[Command]) -> None:
        """See Wire."""
        with _failing():
            self.ray.get(self.actor.tell.options(concurrency_group="tell").remote(list(commands)))

    def receive(self, seconds: float) -> Sequence[Reply]:
        """See Wire."""
        with _failing():
            if not self.ray.wait([self._question], timeout=seconds)[0]:
                return []
            replies: list[Reply] = self.ray.get(self._question)
            self._question = self._ask()
            return replies

    def close(self, *, kindly: bool) -> None:
        """See Wire: one that is left unkindly comes back as a new one."""
        with _failing():
            self.ray.kill(self.actor, no_restart=kindly)


class _Reach:
    """Has Ray make an actor, and finds it again after it was lost."""

    def __init__(self, cluster: Cluster, blueprint: Blueprint, needs: Mapping[str, float]) -> None:
        self.cluster, self.needs = cluster, needs
        # It holds the model, where that came as an object.
        self._blueprint = cluster.ray.put(blueprint)
        self._actor: Any = None
        self._begun: Any = None

    def __call__(self, closing: threading.Event) -> _ActorWire:
        ray = self.cluster.ray
        with _failing():
            if self._actor is None:
                self._actor = self._made(ray)
            if self._begun is None:
                self._begun = self._actor.begin.options(concurrency_group="tell").remote(self._blueprint)
            deadline = time.monotonic() + PLACING
            while not ray.wait([self._begun], timeout=LOOK)[0]:
                if closing.is_set() or time.monotonic() > deadline:
                    needs = ", ".join(f"{count:g} {what}" for what, count in self.needs.items() if count)
                    raise EngineError(f"Ray has not started it yet (it takes {needs}; {self.cluster.said()})")
            begun, self._begun = self._begun, None
            try:
                ray.get(begun)
            except ray.exceptions.ActorUnavailableError:
                raise  # it is started again
            except ray.exceptions.ActorDiedError:
                self._actor = None
                raise
            return _ActorWire(ray, self._actor)

    def _made(self, ray: Any) -> Any:
        how: dict[str, Any] = {
            "num_cpus": self.needs["CPU"],
            "num_gpus": self.needs["GPU"],
            "max_restarts": -1,
            "max_task_retries": 0,
            "concurrency_groups": {"tell": 1, "hear": 1},
            "scheduling_strategy": "SPREAD",
        }
        return ray.remote(**how)(Host).remote()


def actor(name: str, cluster: Cluster, blueprint: Blueprint, *, cpus: float = 1.0, gpus: float = 0.0) -> Link:
    """A member in an actor, which Ray starts again when it or its machine is gone.

    Args:
        cpus, gpus: that it takes of its machine's.
    """
    return Link(name, _Reach(cluster, blueprint, {"CPU": cpus, "GPU": gpus}))


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """What goes wrong with an actor, as a wire says it."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # Ray's own, and what it raises when it is not there any more
        raise EOFError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    # Of an actor's death it says at length who, and then why.
    why = [line for line in lines if line.startswith("The actor is dead because")]
    if type(error).__name__ == "ActorUnavailableError":
        return "its actor ended, and Ray starts it again"
    return (why or lines)[0][:200]


@dataclass(frozen=True)
class InStore:
    """Weights in Ray's object store.

    Attributes:
        reference: to name -> (bytes, type, shape), in a tuple, since Ray would fetch one that stands alone.
    """

    reference: tuple[Any]

    def fetch(self) -> Mapping[str, Tensor]:
        """See `cohort.engine.pool.weights.Weights`."""
        ray = import_ray()
        with _failing():
            held = ray.get(self.reference[0])
        with warnings.catch_warnings():
            # They are read and nothing else.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return {
                name: torch.from_numpy(data).view(kind).view(shape) if len(data) else torch.empty(shape, dtype=kind)
                for name, (data, kind, shape) in held.items()
            }


class Store:
    """A Shelf in Ray's object store: weights leave it when nobody knows of them any more."""

    def __init__(self, cluster: Cluster) -> None:
        self._ray = cluster.ray

    def put(self, version: int, policy: CausalLM) -> InStore:
        """See `cohort.engine.pool.weights.Shelf`."""
        held = {
            name: (each.to("cpu").contiguous().flatten().view(torch.uint8).numpy(), each.dtype, each.shape)
            for name, each in changing(policy).items()
        }
        try:
            return InStore((self._ray.put(held),))
        except Exception as error:  # Ray's own, where its store is full for example
            raise EngineError(f"Ray's object store does not take them: {_first_line(error)}") from error

    def drop(self, version: int) -> None:
        """See Shelf."""

    def close(self) -> None:
        """See Shelf."""
