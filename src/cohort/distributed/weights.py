"""How the weights that are trained lie on the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cohort.distributed.world import World
from cohort.training.checkpoint import read_state
from cohort.training.precision import MasterWeights
from cohort.training.snapshot import Snapshot
from cohort.training.trainer import clip
from cohort.types.policy import Policy


class Weights(Protocol):
    """The weights that are trained, with the models in roles and the optimizer, as one rank has them. Every rank calls each
    of these at the same place, but for what is said to be the driver's.

    Attributes:
        policy: passes are made with it, on each rank over rows of its own.
        lockstep: passes of all ranks wait for each other, so that all make the same number.
    """

    policy: Policy
    lockstep: bool

    def set_lr(self, lr: float) -> None:
        """Set the learning rate."""
        ...

    def ready(self) -> None:
        """Passes are about to be made."""
        ...

    def reduce(self) -> None:
        """Add the gradients up over ranks, after passes."""
        ...

    def clip(self, most: float) -> float:
        """Clip the gradients of all ranks to a norm; the norm before, the same everywhere."""
        ...

    def step(self, updates: int) -> None:
        """One update, the one of this number (the first is 1), and the moves of the models that follow."""
        ...

    def drop(self) -> None:
        """Forget gradients, also of passes that were not finished."""
        ...

    def publish(self) -> None:
        """Have the driver's model, that rollouts are drawn with, hold the weights as they are."""
        ...

    def save(self, folder: Path) -> None:
        """Write the policy's weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state of optimizer and roles, for a checkpoint."""
        ...

    def load(self, folder: Path, state: Mapping[str, Any] | None) -> None:
        """Take over a checkpoint.

        Args:
            folder: of the model in it.
            state: what it holds besides, where it was read already.
        """
        ...

    def hold(self) -> None:
        """See `Trainer.hold`."""
        ...

    @property
    def restorable(self) -> bool:
        """See `Trainer.restorable`: the same on all ranks."""
        ...

    def restore(self) -> None:
        """See `Trainer.restore`."""
        ...

    def finite(self) -> bool:
        """See `Trainer.finite`: the same on all ranks."""
        ...


class Replicated:
    """All of the weights on every rank, and every rank makes every update: what is added up over ranks is the gradient."""

    lockstep = False

    def __init__(self, world: World, policy: Policy, optimizer: MasterWeights) -> None:
        self.world, self.policy, self.optimizer = world, policy, optimizer
        self.snapshot = Snapshot(policy, optimizer)
        self.snapshot.copies = not world.agree(not self.snapshot.copies)

    def set_lr(self, lr: float) -> None:
        """See Weights."""
        self.optimizer.set_lr(lr)

    def ready(self) -> None:
        """See Weights: they are."""

    @torch.no_grad()
    def reduce(self) -> None:
        """See Weights. What no rank's loss depends on gets no gradient."""
        params = self.optimizer.params
        reached = torch.tensor([p.grad is not None for p in params], dtype=torch.int32, device=self.policy.device)
        self.world.sum(reached)
        kinds: dict[torch.dtype, list[torch.nn.Parameter]] = {}
        for param, count in zip(params, reached.tolist(), strict=True):
            if count:
                kinds.setdefault(param.dtype, []).append(param)
        for dtype, some in kinds.items():
            # Sums of halves would lose what few bits they have.
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().to(wide) for p in some])
            parts: list[Tensor] = list(self.world.sum(flat).split([p.numel() for p in some]))
            for param, part in zip(some, parts, strict=True):
                param.grad = part.view_as(param).to(dtype)

    def clip(self, most: float) -> float:
        """See Weights."""
        return clip(self.policy, self.optimizer, most)

    def step(self, updates: int) -> None:
        """See Weights."""
        self.optimizer.step()
        self.policy.roles.move(updates)

    def drop(self) -> None:
        """See Weights."""
        self.optimizer.zero_grad()

    def publish(self) -> None:
        """See Weights: the driver's is one of them."""

    def save(self, folder: Path) -> None:
        """See Weights: the driver does."""
        if self.world.driver:
            self.policy.save(folder)

    def state_dict(self) -> dict[str, Any]:
        """See Weights."""
        return {"optimizer": self.optimizer.state_dict(), "roles": self.policy.roles.state_dict()}

    def load(self, folder: Path, state: Mapping[str, Any] | None) -> None:
        """See Weights."""
        state = read_state(folder.parent) if state is None else state
        self.policy.load_weights(folder)
        self.policy.roles.load_state_dict(state["roles"] if "roles" in state else state["side"])
        self.optimizer.load_state_dict(state["optimizer"])

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

    def finite(self) -> bool:
        """See Weights."""
        return not self.world.agree(not all(bool(param.isfinite().all()) for param in self.optimizer.params))
