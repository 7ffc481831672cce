"""Rollouts drawn on every rank: an engine in a thread of each, over the rank's own model, as members of one pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from cohort.distributed.links import meet
from cohort.distributed.watch import Watch
from cohort.distributed.world import World
from cohort.engine.base import Engine
from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.connection import connected, serve_connection
from cohort.engine.pool.here import here
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.weights import Elsewhere
from cohort.policies.causal_lm import CausalLM
from cohort.training.build import Trained
from cohort.training.engines import started
from cohort.types.policy import Policy


def hosting(world: World, trained: Trained) -> Callable[[], EngineHost]:
    """Makes the host of this rank's engine. Its model has the weights of a version when that is published, which is not while
    something is drawn."""
    asked, policy = trained.config.inference, trained.policy
    assert isinstance(policy, CausalLM)

    def make() -> EngineHost:
        if world.device.type == "cuda":
            torch.cuda.set_device(world.device)  # of this thread
        engine = NativeEngine(policy, slots=asked.slots, cache_mb=asked.cache_mb)
        return EngineHost(engine, lambda weights: 0)

    return make


def draws_on_all(world: World, engine: Engine, policy: Policy) -> bool:
    """True if all ranks draw: the engine is embedded, and reads the weights of the one model there is."""
    return world.size > 1 and isinstance(engine, NativeEngine) and isinstance(policy, CausalLM)


def draw_on_all(world: World, watch: Watch, trained: Trained, log: Callable[[str], None] = lambda _: None) -> Engine:
    """The engine of all ranks; in the driver. The others call `serve_draws`."""
    assert isinstance(trained.policy, CausalLM)
    links = {rank: Connection(link.detach()) for rank, link in meet(world, watch).items()}
    members = [(here("rank-0", hosting(world, trained)), Elsewhere())]
    members += [(connected(f"rank-{rank}", links[rank]), Elsewhere()) for rank in sorted(links)]
    return started(trained.config, trained.policy, members, log)


def serve_draws(world: World, watch: Watch, trained: Trained) -> None:
    """Draw for the driver in a thread, as long as it wants; in the others."""
    connection = Connection(meet(world, watch)[0].detach())
    threading.Thread(
        target=serve_connection, args=(connection, hosting(world, trained)), name="cohort-draws", daemon=True
    ).start()
