"""Weights of which every rank holds all, moved by an optimizer that asks for losses in place of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.distributed.world import World
from cohort.methods import BoundMethod
from cohort.training.build import Trained, optimizer_of
from cohort.training.checkpoint import read_state
from cohort.training.probing import probed
from cohort.training.snapshot import Snapshot
from cohort.training.update import Gradient
from cohort.types import Batch
from cohort.types.policy import Actions, Policy


class Whole:
    """See `cohort.distributed.weights.Weights`.

    Each rank moves its own copy along directions of its own to see what becomes of the loss on its rows, and all make the
    update of what each has found: that, a few bytes, is all that an update sends.

    Args:
        trained: a run's set-up; rollouts are drawn with its policy, which is the one that is trained.
    """

    lockstep = False

    def __init__(self, world: World, trained: Trained) -> None:
        self.world = world
        self.policy: Policy = trained.policy
        self.optimizer = optimizer_of(trained)
        self.snapshot = Snapshot(self.policy, self.optimizer)
        self.snapshot.copies = not world.agree(not self.snapshot.copies)
        self.found: list[bytes] = []

    def set_lr(self, lr: float) -> None:
        """See Weights."""
        self.optimizer.set_lr(lr)

    def ready(self, role: str, want: frozenset[str]) -> None:
        """See Weights: they are."""

    def ready_to_update(self) -> None:
        """See Weights: they are."""

    def idle(self, passes: int, role: str, want: frozenset[str]) -> None:
        """See Weights: there is no lockstep."""

    def rest(self) -> None:
        """See Weights: nothing is held for passes."""

    def made(self, method: BoundMethod, batch: Batch, actions: Actions, **how: Any) -> tuple[Gradient, bytes]:
        """See Weights: losses, and what this rank has found."""
        which: dict[str, Any] = {"machine": self.world.data_rank, "machines": self.world.data_size}
        return probed(self.policy, method, batch, actions, self.optimizer, **which, **how)

    def reduce(self, found: Sequence[bytes]) -> None:
        """See Weights."""
        self.found = list(found)

    def clip(self, most: float) -> float:
        """See Weights."""
        assert self.optimizer.probing is not None
        self.most = most
        return self.optimizer.probing.norm(self.found)

    def step(self, updates: int) -> None:
        """See Weights."""
        self.optimizer.apply(self.found, self.most)
        self.policy.roles.move(updates)

    def drop(self) -> None:
        """See Weights."""
        self.found = []

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
        self.policy.roles.load_state_dict(state["roles"])
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
