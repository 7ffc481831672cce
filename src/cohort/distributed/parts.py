"""The weights that are trained, of which every rank holds a part; see sharding.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cohort.distributed.sharding import Way, clip, local, parts_of, publish, shard, twin
from cohort.distributed.storing import Store
from cohort.distributed.world import World
from cohort.methods import BoundMethod, Method
from cohort.policies.agents import AgentPolicies
from cohort.policies.causal_lm import CausalLM
from cohort.training.build import Trained, make_roles, optimizer_over
from cohort.training.checkpoint import read_state
from cohort.training.config import TrainConfig
from cohort.training.snapshot import Snapshot
from cohort.training.update import Gradient, gradient
from cohort.types import Batch
from cohort.types.policy import Actions, Policy


@dataclass
class Part:
    """What a run trains, and how; see `cohort.training.build.Trained`."""

    config: TrainConfig
    method: Method
    policy: CausalLM | AgentPolicies


class InParts:
    """See `cohort.distributed.weights.Weights`.

    Args:
        trained: a run's set-up. Its policy stays whole, for rollouts to be drawn with; what is trained is a twin of it.
        way: what is in parts during an update; see sharding.py.
    """

    def __init__(self, world: World, trained: Trained, way: Way) -> None:
        assert world.mesh is not None
        self.world, self.replica, self.lockstep = world, trained.policy, way == "parameters" or world.tensor > 1
        own = Part(trained.config, trained.method, twin(trained.policy))
        make_roles(own.policy, own.method, seed=own.config.seed)
        own.policy = shard(own.policy, world.mesh, way)
        self.policy: Policy = own.policy
        self.optimizer = optimizer_over(own)
        self.store = Store(self.policy, self.optimizer, self.replica)
        self.snapshot = Snapshot(self.policy, self.optimizer)
        self.snapshot.copies = not world.agree(not self.snapshot.copies)

    def set_lr(self, lr: float) -> None:
        """See Weights."""
        self.optimizer.set_lr(lr)

    def ready(self, role: str, want: frozenset[str]) -> None:
        """See Weights."""
        for part in parts_of(self.policy):
            part.ready(role, want)

    def ready_to_update(self) -> None:
        """See Weights."""
        for part in parts_of(self.policy):
            part.ready_to_update()

    @torch.no_grad()
    def idle(self, passes: int, role: str, want: frozenset[str]) -> None:
        """See Weights."""
        for part in parts_of(self.policy):
            for _ in range(passes):
                part.idle_pass(want, role)

    def rest(self) -> None:
        """See Weights."""
        for part in parts_of(self.policy):
            part.rest()

    def made(self, method: BoundMethod, batch: Batch, actions: Actions, **how: Any) -> tuple[Gradient, bytes]:
        """See Weights: the gradients are all."""
        return gradient(self.policy, method, batch, actions, **how), b""

    def reduce(self, found: Sequence[bytes]) -> None:
        """See Weights."""
        for part in parts_of(self.policy):
            part.reduce()

    def clip(self, most: float) -> float:
        """See Weights: the gradients of each policy by themselves."""
        apart = self.policy.clipped_apart() if isinstance(self.policy, AgentPolicies) else [self.optimizer.params]
        return math.hypot(*(clip(parameters, most) for parameters in apart))

    def step(self, updates: int) -> None:
        """See Weights."""
        self.optimizer.step()
        self.policy.roles.move(updates)

    def drop(self) -> None:
        """See Weights."""
        self.optimizer.zero_grad()
        for part in parts_of(self.policy):
            part.drop()

    def publish(self) -> None:
        """See Weights."""
        publish(self.policy, self.replica)

    def save(self, folder: Path) -> Future[Any]:
        """See Weights: every rank writes its parts."""
        return self.store.save(folder)

    def state_dict(self) -> dict[str, Any]:
        """See Weights."""
        return self.store.state_dict()

    def load(self, folder: Path, state: Mapping[str, Any] | None) -> None:
        """See Weights."""
        self.store.load(folder, read_state(folder.parent) if state is None else state)
        self.publish()

    def hold(self) -> None:
        """See Weights."""
        self.snapshot.begin()

    @property
    def restorable(self) -> bool:
        """See Weights."""
        return self.snapshot.whole

    def restore(self) -> None:
        """See Weights."""
        self.snapshot.restore()
        self.publish()

    @torch.no_grad()
    def finite(self) -> bool:
        """See Weights."""
        own = all(bool(local(param).isfinite().all()) for param in self.optimizer.params)
        return not self.world.agree(not own)
