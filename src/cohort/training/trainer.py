"""The trainer: it holds the weights and updates them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cohort.engine.base import Copying, Engine
from cohort.errors import EngineError
from cohort.methods import BoundMethod
from cohort.policies.agents import AgentPolicies
from cohort.policies.passes import attempts, log_probs
from cohort.policies.shards import is_sharded, read, read_away, weights_of
from cohort.training.precision import MasterWeights
from cohort.training.probing import probed
from cohort.training.progress import Progress
from cohort.training.snapshot import Snapshot
from cohort.training.update import Gradient, gradient
from cohort.types import Batch
from cohort.types.policy import Actions, Policy

# Mean mismatch, as a multiple of the first step's, beyond which the engine does not hold the weights that are trained, and
# the one (nats) up to which it is rounding, in half precision and in float32: healthy runs have 0.02 and 1e-6 at most.
GROWTH = 20.0
ROUNDING = (0.05, 1e-4)


class Scorer(Protocol):
    """Scores rollouts with weights of a known version."""

    @property
    def version(self) -> int:
        """The version of the weights: the number of updates that were made before."""
        ...

    def log_probs(
        self,
        actions: Actions,
        want: frozenset[str] = frozenset({"logp"}),
        *,
        width: int,
        role: str = "policy",
        temperature: float | None = None,
    ) -> dict[str, Tensor]:
        """What a model gives to n rollouts' actions, without gradient, right padded: name -> [n, width] in the processor's
        memory, or [n, width, ...] (logits, hidden states) where the policy is.

        Args:
            want: names, as of `Policy.log_probs`.
            role: of the model.
            temperature: None takes the run's.
        """
        ...


class Trainer(Scorer, Protocol):
    """Scores rollouts, takes gradients of minibatches, and makes the updates: one process, or many that act as one.

    Attributes:
        progress: of the run; its counts of updates are moved on here.
        done: the gradient of each update since `begin`.
        norms: their norms before clipping.
    """

    progress: Progress

    done: list[Gradient]
    norms: list[float]

    def begin(self, lr: float | None) -> None:
        """Begin a step's updates, at a learning rate; None leaves the rate as it is."""
        ...

    def update(self, method: BoundMethod, batch: Batch, actions: Actions, *, on_policy: bool) -> Gradient:
        """One update of the weights by the gradient of a minibatch's loss.

        Args:
            actions: of the batch's rollouts.
            on_policy: the policy has not moved since the step began.
        """
        ...

    def trust(self, mismatch: tuple[float, float] | None) -> None:
        """Go on only where the engine has drawn with the weights that are trained.

        Args:
            mismatch: mean and largest difference (nats) of its log-probabilities from the trainer's in this step; None if
                unknown.

        Raises:
            EngineError: it has not, although it did at first.
        """
        ...

    def publish(self) -> None:
        """Have the engine sample with the weights as they are now."""
        ...

    def reaches(self, folder: Path) -> None:
        """Every process that writes into a run's folder can.

        Raises:
            UsageError: one cannot; says which.
        """
        ...

    def save(self, folder: Path) -> Future[Any] | None:
        """Write the weights of the policy as they are now, and what `state_dict` leaves out.

        Returns:
            None if they are written; otherwise what is done when they are, while the run may go on.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the next update depends on in addition to the policy's weights: the optimizer, the models in roles.

        Tensors whose values `save` writes are without values (`shards.away`).
        """
        ...

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Take over what `save` wrote and `state_dict` gave."""
        ...

    def hold(self) -> None:
        """A step begins, or is over with all that belongs to it: `restore` brings weights, models in roles and optimizer
        back to where they are now, if what the step changes is small enough to be copied."""
        ...

    @property
    def restorable(self) -> bool:
        """True if they are as they were when `hold` was called, or a copy of that was made."""
        ...

    def restore(self) -> None:
        """Undo the updates since `hold`, where they are `restorable`."""
        ...

    def finite(self) -> bool:
        """True if all weights that are trained are numbers."""
        ...

    def metrics(self) -> dict[str, float]:
        """What the trainer itself has to say of a step's updates."""
        ...


@dataclass
class LocalTrainer:
    """One process: all passes and updates are made here.

    Attributes:
        temperature: of the policy, as it is sampled and scored.
        micro_tokens: most tokens in one forward pass with gradient.
        grad_clip: largest norm of a gradient.
    """

    policy: Policy
    optimizer: MasterWeights
    progress: Progress
    engine: Engine
    temperature: float
    micro_tokens: int
    grad_clip: float
    done: list[Gradient] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.snapshot = Snapshot(self.policy, self.optimizer)

    @property
    def version(self) -> int:
        return self.progress.updates

    def begin(self, lr: float | None) -> None:
        """See `Trainer.begin`."""
        if lr is not None:
            self.optimizer.set_lr(lr)
        self.done, self.norms = [], []

    def log_probs(
        self,
        actions: Actions,
        want: frozenset[str] = frozenset({"logp"}),
        *,
        width: int,
        role: str = "policy",
        temperature: float | None = None,
    ) -> dict[str, Tensor]:
        """See `Trainer.log_probs`."""
        return log_probs(
            self.policy,
            actions,
            width=width,
            temperature=self.temperature if temperature is None else temperature,
            micro_tokens=self.micro_tokens,
            want=want,
            role=role,
        )

    def update(self, method: BoundMethod, batch: Batch, actions: Actions, *, on_policy: bool) -> Gradient:
        """See `Trainer.update`; skipped and counted where loss or gradient is not finite."""
        optimizer, progress = self.optimizer, self.progress
        how: dict[str, Any] = {"temperature": self.temperature, "micro_tokens": self.micro_tokens}
        probing, found = optimizer.probing, b""
        for attempt in attempts(self.policy):
            with attempt:
                if probing:
                    done, found = probed(self.policy, method, batch, actions, optimizer, on_policy=on_policy, **how)
                else:
                    done = gradient(self.policy, method, batch, actions, on_policy=on_policy, **how)
        done.version = self.version
        norm = probing.norm([found]) if probing else clip(self.policy, self.optimizer, self.grad_clip)
        finite = math.isfinite(norm) and math.isfinite(done.loss)
        if finite:
            if probing:
                optimizer.apply([found], self.grad_clip)
            else:
                optimizer.step()
            self.policy.roles.move(progress.updates + 1)
        optimizer.zero_grad()
        progress.count(finite=finite, tokens=int(batch.mask.sum()))
        self.done.append(done)
        self.norms.append(norm)
        return done

    def trust(self, mismatch: tuple[float, float] | None) -> None:
        """See `Trainer.trust`."""
        trust(self.engine, self.progress, self.policy.dtype, mismatch)

    def publish(self) -> None:
        """See `Trainer.publish`."""
        self.engine.sync()

    def reaches(self, folder: Path) -> None:
        """See `Trainer.reaches`: the process that made the folder."""

    def save(self, folder: Path) -> None:
        """See `Trainer.save`."""
        self.policy.save(folder)

    def state_dict(self) -> dict[str, Any]:
        """See `Trainer.state_dict`."""
        return {"optimizer": self.optimizer.state_dict(), "roles": self.policy.roles.state_dict()}

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """See `Trainer.load`; also of what many processes wrote."""
        if is_sharded(folder):
            read(folder, weights_of(self.policy))
            state = read_away(folder, state)
        else:
            self.policy.load_weights(folder)
        # Earlier versions called it so.
        self.policy.roles.load_state_dict(state["roles"] if "roles" in state else state["side"])
        self.optimizer.load_state_dict(state["optimizer"])

    def hold(self) -> None:
        """See `Trainer.hold`."""
        self.snapshot.begin()

    @property
    def restorable(self) -> bool:
        """See `Trainer.restorable`."""
        return self.snapshot.whole

    def restore(self) -> None:
        """See `Trainer.restore`."""
        self.snapshot.restore()

    def finite(self) -> bool:
        """See `Trainer.finite`."""
        return all(bool(param.isfinite().all()) for param in self.optimizer.params)

    def metrics(self) -> dict[str, float]:
        """See `Trainer.metrics`: nothing."""
        return {}


def clip(policy: Policy, optimizer: MasterWeights, most: float) -> float:
    """Clip the gradients, those of each policy by themselves; the norm of all before."""
    if not isinstance(policy, AgentPolicies):
        return float(torch.nn.utils.clip_grad_norm_(optimizer.params, most))
    return math.hypot(*(float(torch.nn.utils.clip_grad_norm_(part, most)) for part in policy.clipped_apart()))


def trust(engine: Engine, progress: Progress, dtype: torch.dtype, mismatch: tuple[float, float] | None) -> None:
    """See `Trainer.trust`: no engine but one with a copy of the weights is in question.

    Args:
        dtype: of the weights.
    """
    mean = math.nan if mismatch is None else mismatch[0]
    if engine.exact or not isinstance(engine, Copying) or math.isnan(mean):
        return
    first = progress.first_mismatch
    if first is None:
        progress.first_mismatch = mean
    elif mean > max(GROWTH * first, ROUNDING[dtype in (torch.float32, torch.float64)]):
        names = engine.not_taken_over()
        which = f"it does not take over changes of {', '.join(names)}" if names else "which ones could not be found out"
        raise EngineError(
            f"the engine has drawn with other weights than those that are trained: log-probabilities are {mean:.2g} "
            f"nats apart on average, at the first step {first:.2g}; {which}. The step is not made. docs/engines.md says "
            "what may be the reason"
        )
