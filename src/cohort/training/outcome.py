"""Bookkeeping of a step: what became of each rollout, what its updates were, and its metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cohort.methods import BoundMethod, Prepared
from cohort.rollouts.sources import Drawn
from cohort.training.batches import Batches
from cohort.training.clock import Clock
from cohort.training.diagnostics import measured
from cohort.training.progress import Progress
from cohort.training.trace import notices, with_outcomes
from cohort.training.trainer import Trainer
from cohort.training.update import Gradient
from cohort.types import Batch, Rollout


@dataclass
class StepResult:
    """The result of a step, for the record.

    Attributes:
        rollouts: all rollouts of the step.
        everything: the same as a batch, with what became of each (see `with_outcomes`).
        batch: those trained on, with their advantages and what the last updates made of them; None if there are none.
        trained: for each row of `batch`, the place of its rollout in `rollouts`.
        warnings: what the user should know of the step.
        version: of the weights that the step began with.
    """

    metrics: dict[str, float]
    rollouts: list[Rollout]
    everything: Batch
    batch: Batch | None = None
    trained: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    version: int = 0


@dataclass
class Outcome:
    """What a step has come to so far, while its updates are made.

    Attributes:
        everything: all rollouts, and then those replayed, as a batch, with what became of each.
        metrics: what the method's functions reported.
        mismatch: mean and largest difference between engine and trainer at the first update; None before.
    """

    method: BoundMethod
    drawn: Drawn
    everything: Batch
    metrics: dict[str, float]
    mismatch: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        batches: Batches,
        method: BoundMethod,
        drawn: Drawn,
        scored: Batch,
        compared: Sequence[Rollout],
        prepared: Prepared,
    ) -> Outcome:
        """The outcome before the updates.

        Args:
            scored: the batch of the rollouts with a reward.
            compared: the rollouts that `prepared` was made of.
        """
        rollouts = [*drawn.rollouts, *drawn.replayed]
        place = {id(rollout): row for row, rollout in enumerate(rollouts)}
        everything = scored
        if scored.size != len(rollouts):
            rows = [place[id(rollout)] for rollout in drawn.scored]
            everything = _grouped_as(scored, batches.of(method, rollouts), rows)
        chosen = torch.tensor([place[id(rollout)] for rollout in compared], dtype=torch.int64)
        outcomes = with_outcomes(method, everything, prepared, chosen)
        return cls(method, drawn, outcomes, dict(prepared.metrics), drawn.mismatch)

    def compare(self, done: Gradient, batch: Batch, rows: Tensor) -> None:
        """Compare engine and trainer in the step's first pass over rollouts that its own weights drew.

        Args:
            done: what a pass gave.
            batch: the step's; rows: of it that the pass went over, and further ones of other batches.
        """
        if self.mismatch is not None or done.version != self.method.info.version:
            return
        own = rows < batch.size
        if not bool(own.any()):
            return
        logp = done.fields["logp"][own][:, : batch.mask.shape[1]]
        batch = batch.select(rows[own]).replace(logp=logp)
        stale = (batch["version"] != done.version) & batch.mask & ~batch["sampler_logp"].isnan()
        fresh = batch.select(~stale.any(1))
        self.mismatch = mismatch(fresh) if fresh.size else None

    def result(
        self, progress: Progress, trainer: Trainer, batch: Batch, rollouts: Sequence[Rollout], clock: Clock
    ) -> StepResult:
        """The step as it is recorded.

        Args:
            batch: of the `rollouts` that were trained on, as the updates left it.
        """
        drawn, everything = self.drawn, self.everything
        progress.tokens += drawn.tokens
        if self.mismatch is not None:
            progress.mismatch = self.mismatch[1]
        place = {id(rollout): row for row, rollout in enumerate(drawn.rollouts)}
        recorded = batch
        if drawn.replayed:
            everything = everything.select(torch.arange(len(drawn.rollouts), device=everything.device))
            own = torch.tensor([id(rollout) in place for rollout in rollouts], dtype=torch.bool, device=batch.device)
            recorded = batch.select(own)
        metrics = measured(everything, drawn.rollouts, batch, trainer.done, trainer.norms) | self.metrics
        # Where a replay has moved the weights before the first pass there is nothing to compare with.
        unknown = math.nan if rollouts else 0.0
        metrics |= {"mismatch": self.mismatch[0] if self.mismatch else unknown, "mismatch_max": progress.mismatch}
        metrics |= {"tokens": progress.tokens, "tokens_trained": progress.trained}
        metrics |= {"lr": self.method.info.lr or 0.0, "skipped_updates": progress.skipped}
        # What was drawn elsewhere has times of its own.
        metrics |= clock.times() | drawn.metrics
        metrics |= trainer.metrics()
        return StepResult(
            metrics,
            drawn.rollouts,
            everything,
            recorded if recorded.size else None,
            [place[id(rollout)] for rollout in rollouts if id(rollout) in place],
            [*drawn.notes, *notices(self.method.method, everything, drawn.rollouts)],
            self.method.info.version,
        )


def mismatch(batch: Batch) -> tuple[float, float]:
    """Mean and largest difference between the log-probabilities of engine and trainer, for equal weights; NaN where the
    engine drew none of the tokens."""
    difference = (batch.logp - batch["sampler_logp"]).abs()[batch.mask]
    known = difference[~difference.isnan()]
    if known.numel():
        return float(known.mean()), float(known.max())
    return (math.nan, math.nan) if difference.numel() else (0.0, 0.0)


def _grouped_as(scored: Batch, everything: Batch, rows: Sequence[int]) -> Batch:
    """All rollouts, in the groups that the method made of those with a reward; the others stay beside those that they were
    drawn with.

    Args:
        rows: of `everything` that are those of `scored`.
    """
    drawn, made = everything["group"].tolist(), scored["group"].tolist()
    if _numbered([drawn[row] for row in rows]) == _numbered(made):
        return everything
    found = {drawn[row]: group for row, group in zip(reversed(rows), reversed(made), strict=True)}
    beyond = max(made, default=-1) + 1
    groups = [found.get(group, beyond + group) for group in drawn]
    for row, group in zip(rows, made, strict=True):
        groups[row] = group
    return everything.with_rollouts(group=everything["group"].new_tensor(groups))


def _numbered(groups: Sequence[int]) -> list[int]:
    """The same partition, its groups numbered as they appear."""
    number: dict[int, int] = {}
    return [number.setdefault(group, len(number)) for group in groups]
