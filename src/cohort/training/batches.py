"""Makes the batch that a method reads of rollouts: tensors, the fields of its hooks, and passes of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cohort.engine.base import Engine
from cohort.methods import BoundMethod
from cohort.policies.passes import layers_of
from cohort.rewards.judge import ask
from cohort.rewards.judges.judges import Judges
from cohort.rollouts.batching import make_batch
from cohort.training.merging import fill_missing_fields
from cohort.training.progress import Progress
from cohort.training.trainer import Scorer
from cohort.types import Batch, Message, Rollout, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.policy import Policy
from cohort.types.replay import Replay, concat
from cohort.types.support import Support

# Largest difference between the engine's and the trainer's log-probabilities with which the engine's may stand in for
# old_logp: of the order of float32 rounding over a deep model, far below what moves a ratio.
MISMATCH_BOUND = 1e-3
# Fields that a pass of a model gives before the update, when a method declares them.
EARLY = frozenset({"old_logp", "ref_logp", "teacher_logp", "old_values", "target_values"})


@dataclass
class Batches:
    """Makes batches of rollouts for a run.

    Attributes:
        rows: prompt id -> row of the data set.
        system: the run's system message.
        old_logp: where the log-probabilities before the update come from: "auto", "sampler" or "score".
        judges: whom a method's PROMPT@MODEL asks.
    """

    policy: Policy
    trainer: Scorer
    engine: Engine
    progress: Progress
    rows: Mapping[str, int]
    temperature: float
    system: str | None = None
    old_logp: str = "auto"
    judges: Judges | None = None

    def of(self, method: BoundMethod, rollouts: Sequence[Rollout]) -> Batch:
        """Rollouts as tensors in the processor's memory, where the method's functions run but for the loss."""
        return make_batch(rollouts, self.rows, extra=sorted(method.method.drawn))

    def scored(self, method: BoundMethod, rollouts: Sequence[Rollout]) -> Batch:
        """The batch of rollouts with rewards, with the fields that the method makes of them."""
        batch = self.of(method, rollouts)
        return method.on_scored(batch, self.access(rollouts, method.info)) if rollouts else batch

    def with_replayed(
        self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout], replayed: Sequence[Rollout]
    ) -> tuple[Batch, list[Rollout]]:
        """The batch of `rollouts`, and these, with replayed rollouts after them."""
        if not replayed:
            return batch, list(rollouts)
        again = self.scored(method, replayed)
        return concat([batch, again] if batch.size else [again]), [*rollouts, *replayed]

    def comparable(
        self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout], chosen: Sequence[Rollout]
    ) -> tuple[Batch, list[Rollout]]:
        """The rows of `batch` that belong to `chosen` rollouts of groups large enough for the method, and these rollouts."""
        place = {id(rollout): row for row, rollout in enumerate(rollouts)}
        batch = batch.select(torch.tensor([place[id(rollout)] for rollout in chosen], dtype=torch.int64))
        rows = method.comparable(batch)
        return batch.select(rows), [chosen[row] for row in rows.tolist()]

    def passing(self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts of a batch that the filters before the advantage keep."""
        if method.method.needs(loss=False) & EARLY:
            batch = self.complete(method, batch, rollouts)
        batch, compared = self.comparable(method, batch, rollouts, rollouts)
        return [compared[row] for row in method.keep(method.shape(batch), after_advantage=False, drawing=True).tolist()]

    # passes of the models ------------------------------------------------------------------------------------------

    def complete(self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout]) -> Batch:
        """The batch with the fields that the method declares and a pass of a model gives, and no others."""
        early, late = method.method.needs(loss=False), method.method.needs(loss=True)
        if not rollouts:
            return batch
        width = batch.mask.shape[1]
        if "old_logp" in early:
            batch = self.with_old_logp(batch, rollouts)
        if "ref_logp" in early | late:
            batch = batch.replace(ref_logp=self._scores(rollouts, width, role="reference"))
        if "teacher_logp" in early | late:
            batch = batch.with_tokens(teacher_logp=self._scores(rollouts, width, role="teacher"))
        if "old_values" in early | late:
            batch = batch.with_tokens(old_values=self._scores(rollouts, width, "values"))
        if "target_values" in early | late:
            values = self._scores(rollouts, width, "values", role="target")
            batch = batch.with_tokens(target_values=values)
        return batch

    def _scores(self, rollouts: Sequence[Rollout], width: int, want: str = "logp", *, role: str = "policy") -> Tensor:
        """`want` [n, width] of n rollouts."""
        actions = self.policy.actions(rollouts)
        return self.trainer.log_probs(actions, frozenset({want}), width=width, role=role)[want]

    def with_old_logp(self, batch: Batch, rollouts: Sequence[Rollout]) -> Batch:
        """The batch with the log-probabilities of the policy before the update: the engine's own, where they agree with
        the trainer's, or a pass of their own."""
        if "old_logp" in batch or not rollouts:
            return batch
        width = batch.mask.shape[1]
        exact = self.engine.exact and self.policy.dtype == torch.float32 and self.progress.mismatch < MISMATCH_BOUND
        if not (self.old_logp == "sampler" or (self.old_logp == "auto" and exact)):
            return batch.replace(old_logp=self._scores(rollouts, width))
        drawn = batch["sampler_logp"]
        # What these weights did not draw, in the context that is trained on, must be scored.
        stale = (batch["version"] != self.trainer.version) & batch.mask
        missing = drawn.isnan() | (stale if self.old_logp == "auto" else False)
        rows = missing.any(1).nonzero()[:, 0]
        if rows.numel():
            scored = self._scores([rollouts[row] for row in rows.tolist()], width).to(drawn.dtype)
            drawn = drawn.index_put((rows,), torch.where(missing[rows], scored, drawn[rows]))
        return batch.replace(old_logp=drawn)

    def access(self, rollouts: Sequence[Rollout], info: StepInfo) -> ModelAccess:
        """The access to rollouts and models that hooks are given."""
        policy, renderer = self.policy, self.policy.renderer

        def score(
            contexts: Sequence[Sequence[int]],
            completions: Sequence[Sequence[int]],
            *,
            role: str = "policy",
            temperature: float | None = None,
            want: frozenset[str] = frozenset({"logp"}),
            support: Sequence[Support | None] = (),
        ) -> dict[str, Tensor]:
            actions = policy.actions_after(contexts, completions, support)
            width = max((len(c) for c in completions), default=0) or 1
            return self.trainer.log_probs(actions, want, width=width, role=role, temperature=temperature)

        def render(source: str | list[Message], schemas: Sequence[Mapping[str, object]] = ()) -> tuple[int, ...]:
            return renderer.prompt(source, self.system, schemas)[1]

        return ModelAccess(
            rollouts,
            score,
            lambda contexts, **how: layers_of(policy).hidden_states(contexts, **how),
            lambda: layers_of(policy).head_weight(),
            renderer.encode,
            renderer.decode,
            render,
            partial(ask, judges=self.judges),
            info.step,
            info.steps,
            self.temperature,
            renderer.context_length,
        )

    # what is trained on together with the step's rollouts ----------------------------------------------------------

    def auxiliary_replays(self, method: BoundMethod, batch: Batch, rollouts: Sequence[Rollout]) -> list[Replay]:
        """Completions to train on together with the step's batch, marked by the field `auxiliary` [N]. Fields that only
        rollouts have are 0 for them."""
        if not rollouts:
            return []
        stored = self.scored(method, rollouts)
        if "old_logp" in method.method.needs(loss=True) | method.method.needs(loss=False):
            width = stored.mask.shape[1]
            stored = stored.replace(old_logp=self._scores(rollouts, width))
        stored = fill_missing_fields(self.complete(method, stored, rollouts), like=batch)
        stored = stored.with_rollouts(auxiliary=torch.ones_like(stored["group"]))
        return [Replay(stored.to("cpu"), tuple(rollout.context for rollout in rollouts))]
