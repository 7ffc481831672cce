"""A copy of what a step's updates change, so that an unfinished step can be undone."""

from __future__ import annotations

import copy
from typing import Any

import torch

from cohort.devices import wait
from cohort.training.precision import MasterWeights
from cohort.types.policy import Policy

# Most bytes that are copied at every step so that it can be undone, in the processor's memory: little beside a training
# step on a CPU, where that is the memory that models are short of, and on a GPU, where it is not.
COPIED_CPU, COPIED_ELSEWHERE = 2**25, 2**30


class Snapshot:
    """The weights, the models in roles and the optimizer as they were before the step's first update.

    They are copied right before it, where they are small enough.

    Attributes:
        copies: they are.
    """

    def __init__(self, policy: Policy, optimizer: MasterWeights) -> None:
        self.policy, self.optimizer = policy, optimizer
        values = [p for p in optimizer.params if p.requires_grad]
        masters = [m for m, p in zip(optimizer.masters, optimizer.params, strict=True) if m is not p]
        # Weights, float32 copies, and two moments of each.
        size = sum(p.numel() * p.element_size() for p in [*values, *masters]) + 8 * sum(p.numel() for p in values)
        size += sum(
            t.numel() * t.element_size() for model in policy.roles.following() for t in model.state_dict().values()
        )
        self.copies = size <= (COPIED_CPU if policy.device.type == "cpu" else COPIED_ELSEWHERE)
        self._copy: dict[str, Any] | None = None
        self._updated = False
        optimizer.before_step = self._before_update

    def begin(self) -> None:
        """A step begins, or is over with all that belongs to it."""
        self._copy, self._updated = None, False

    def _before_update(self) -> None:
        if self._updated:
            return
        if self.copies:
            roles = {role: _copied(state) for role, state in self.policy.roles.state_dict().items()}
            weights = [_copied(p) for p in self.optimizer.params]
            self._copy = {"roles": roles, "weights": weights, "optimizer": _copied(self.optimizer.state_dict())}
            wait(self.policy.device)
        self._updated = True

    @property
    def whole(self) -> bool:
        """False while the weights are between two steps and no copy of them was made."""
        return self._copy is not None or not self._updated

    @torch.no_grad()
    def restore(self) -> None:
        """Bring back what was copied; without a copy nothing changes."""
        if self._copy is None:
            return
        for param, value in zip(self.optimizer.params, self._copy["weights"], strict=True):
            param.copy_(value)
        self.policy.roles.load_state_dict(self._copy["roles"])
        self.optimizer.load_state_dict(self._copy["optimizer"])


def _copied(state: Any) -> Any:
    """A state with its tensors copied into the processor's memory; they are there when the device was waited for."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True, non_blocking=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return type(state)(map(_copied, state)) if isinstance(state, (list, tuple)) else copy.copy(state)
