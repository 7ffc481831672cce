"""How the weights that are trained lie on the ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from cohort.methods import BoundMethod
from cohort.training.update import Gradient, Share
from cohort.types import Batch
from cohort.types.policy import Actions, Policy


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

    def ready(self, role: str, want: frozenset[str]) -> None:
        """Passes of a role without gradient are about to be made."""
        ...

    def ready_to_update(self) -> None:
        """Passes with gradient are about to be made."""
        ...

    def idle(self, passes: int, role: str, want: frozenset[str]) -> None:
        """Where there is `lockstep`, take part in this many passes of other ranks without gradient."""
        ...

    def rest(self) -> None:
        """Passes without gradient are over, or have failed."""
        ...

    def made(
        self,
        method: BoundMethod,
        batch: Batch,
        actions: Actions,
        *,
        temperature: float,
        micro_tokens: int,
        on_policy: bool,
        share: Share,
    ) -> tuple[Gradient, bytes]:
        """See `cohort.training.update.gradient`; and what other ranks must know to `reduce`."""
        ...

    def reduce(self, found: Sequence[bytes]) -> None:
        """Passes with gradient are over: add the gradients up over ranks.

        Args:
            found: what each share of the rows has `made` for the others.
        """
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

    def save(self, folder: Path) -> Future[Any] | None:
        """See `Trainer.save`."""
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
