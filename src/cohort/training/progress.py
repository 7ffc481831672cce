"""The progress of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cohort.training.config import TrainConfig


@dataclass
class Progress:
    """What changes from step to step and goes into a checkpoint.

    Attributes:
        step: steps completed.
        states: of the method's stateful functions.
        tokens: tokens sampled so far; trained: those that went through an update, each time that one did.
        updates: updates made so far: the version of the weights.
        skipped: updates skipped because loss or gradient was not finite; in_a_row: the last ones without a good one.
        mismatch: largest difference between engine and trainer at the last update.
        first_mismatch: the mean one at the first update; None before.
    """

    step: int = 0
    states: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    trained: int = 0
    updates: int = 0
    skipped: int = 0
    in_a_row: int = 0
    mismatch: float = 0.0
    first_mismatch: float | None = None

    def count(self, *, finite: bool, tokens: int) -> None:
        """Count an update of so many tokens, which was skipped where its loss or gradient was not finite."""
        self.updates += finite
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1
        self.trained += tokens


def finished(config: TrainConfig, progress: Progress) -> bool:
    """The run has made all its steps, or sampled all the tokens that it may."""
    spent = bool(config.optimisation.max_tokens_sampled) and progress.tokens >= config.optimisation.max_tokens_sampled
    return progress.step >= config.optimisation.steps or spent
