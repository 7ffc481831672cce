"""Half-precision weights with float32 masters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cohort.types.probing import Probing


class MasterWeights:
    """An optimizer over float32 copies of half-precision parameters.

    An update of 1e-6 times a weight is lost in bfloat16's 8 bits of mantissa; it is kept in the copy, and the parameter
    is the copy rounded.

    Args:
        params: the parameters that are trained; those already in float32 are used as they are.
        make: parameters, or groups of parameters, -> optimizer.
        scaled: further parameters, and what their learning rate is times that of the others.
    """

    def __init__(
        self,
        params: Sequence[torch.nn.Parameter],
        make: Callable[[list[Any]], Any],
        *,
        scaled: tuple[Sequence[torch.nn.Parameter], float] = ((), 1.0),
    ) -> None:
        self.params = [*params, *scaled[0]]
        self.masters = [
            p if p.dtype not in (torch.bfloat16, torch.float16) else torch.nn.Parameter(p.detach().float())
            for p in self.params
        ]
        own, further = self.masters[: len(params)], self.masters[len(params) :]
        # An optimizer may know no more of groups than that they have parameters, so it is given them only where needed.
        groups = [{"params": own}, {"params": further, "lr_scale": scaled[1]}] if further else own
        self.inner: torch.optim.Optimizer = make(groups)
        # Called before every update.
        self.before_step: Callable[[], None] = lambda: None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group, times the group's own `lr_scale`."""
        for group in self.inner.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients of the parameters."""
        self.before_step()
        for param, master in zip(self.params, self.masters, strict=True):
            if master is not param:
                master.grad = None if param.grad is None else param.grad.float()
        self.inner.step()
        for param, master in zip(self.params, self.masters, strict=True):
            if master is not param:
                param.copy_(master)
                master.grad = None

    @property
    def probing(self) -> Probing | None:
        """The optimizer, if it asks for losses in place of gradients."""
        return self.inner if isinstance(self.inner, Probing) else None

    def probe(self, loss: Callable[[], float], machine: int) -> bytes:
        """See Probing."""
        assert self.probing is not None

        def here() -> float:
            self._round()
            return loss()

        try:
            return self.probing.probe(here, machine)
        finally:
            self._round()

    def apply(self, told: Sequence[bytes], most: float) -> None:
        """See Probing."""
        assert self.probing is not None
        self.before_step()
        self.probing.apply(told, most)
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        """Take the copies over."""
        for param, master in zip(self.params, self.masters, strict=True):
            if master is not param:
                param.copy_(master)

    def zero_grad(self) -> None:
        for param in self.params:
            param.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the float32 copies."""
        copies = [m.detach() if m is not p else None for p, m in zip(self.params, self.masters, strict=True)]
        return {"inner": self.inner.state_dict(), "masters": copies}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        for param, master, copy in zip(self.params, self.masters, state["masters"], strict=True):
            if copy is not None:
                master.copy_(copy)
                param.copy_(master)
