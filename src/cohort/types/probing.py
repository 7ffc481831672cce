"""Optimizers that ask for losses in place of gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Probing(Protocol):
    """An optimizer that needs no back-propagation: it looks at how the loss changes where it moves the weights.

    Where several machines hold the same weights, each probes with a part of the batch, and all make the same update of what
    each has found.
    """

    def probe(self, loss: Callable[[], float], machine: int) -> bytes:
        """What this machine has found, for all others; the weights are as they were before, to the bit.

        Args:
            loss: at the weights as they are when it is called.
            machine: which one this is, counted from 0.
        """
        ...

    def norm(self, told: Sequence[bytes]) -> float:
        """What was found of the gradient's norm.

        Args:
            told: what each machine has found, by machine.
        """
        ...

    def apply(self, told: Sequence[bytes], most: float) -> None:
        """One update of the weights by what each machine has found, cut to the largest norm of a gradient."""
        ...
