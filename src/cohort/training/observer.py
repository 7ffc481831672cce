"""Who looks on at a run that goes on. Training knows no observer; its callers hand theirs in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol


class Observer(Protocol):
    """Sees the metrics of every step as soon as they are stored."""

    def step(self, row: Mapping[str, Any]) -> Sequence[str]:
        """What is to be said after a step.

        Args:
            row: `step`, counted from 1, and its metrics, as a line of metrics.jsonl has them.

        Returns:
            lines; none where nothing is to be said.
        """


# (name of the run, its configuration as plain values, metrics of the steps that came before a continued run) -> observer
MakeObserver = Callable[[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], Observer]
