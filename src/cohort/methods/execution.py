"""A method at work: its functions called in the order of the step, each with its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cohort.methods.axis import LOSS_AXES
from cohort.methods.requirements import Requirements
from cohort.methods.stage import MethodError, Stage, parameters
from cohort.reductions.groups import group_rows
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import State
from cohort.types.replay import Recall


class Loss(NamedTuple):
    """What a method makes of a minibatch.

    Attributes:
        total: scalar to minimise.
        policy: scalar, the part of the surrogate or objective.
        regularizers: name -> scalar.
        ratio, weight: [N, T] importance ratio, and what the token losses are multiplied with in the sum (aggregation, and
            correction); None with an objective.
        correction: [N, T] what the token losses were multiplied by, 0 where they were rejected; None without a correction.
    """

    total: Tensor
    policy: Tensor
    regularizers: dict[str, Tensor]
    ratio: Tensor | None = None
    weight: Tensor | None = None
    correction: Tensor | None = None


class Prepared(NamedTuple):
    """What the axes before the update make of a batch of N rollouts.

    Attributes:
        shaped: the batch with its rewards shaped.
        filtered, before: rows of it that the filters before the advantage leave, and those of them in groups that are
            still large enough.
        assigned: those with their advantages.
        passed, trained: rows of `shaped` that the filters after the advantage leave, and those that are trained on.
        batch: these.
    """

    shaped: Batch
    filtered: Tensor
    before: Tensor
    assigned: Batch
    passed: Tensor
    trained: Tensor
    batch: Batch


class Execution(Requirements):
    """The functions of a method, called."""

    @cached_property
    def keyed(self) -> tuple[tuple[str, str, Stage], ...]:
        """(key of its state, axis, function) of everything that runs in a step."""
        seen: dict[str, int] = {}
        out = []
        for axis, stage in self.stages():
            key = f"{axis}/{stage.name}"
            seen[key] = seen.get(key, 0) + 1
            out.append((key if seen[key] == 1 else f"{key}/{seen[key]}", axis, stage))
        return tuple(out)

    def comparable(self, batch: Batch, *, after_advantage: bool = False) -> Tensor:
        """Rows [n] int64 of the groups that have enough rollouts for the method, or for what comes after the advantage."""
        return group_rows(batch.groups, self._least(LOSS_AXES) if after_advantage else self.group_size)

    def init(self, *, size: int, steps: int = 1, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, State]:
        """States at the start of a run of `steps` steps on a data set of `size` prompts, whose columns `rows` holds."""
        return {
            key: stage.hook("init", size=size, steps=steps, rows=rows)
            for key, _, stage in self.keyed
            if stage.declared.init is not None
        }

    @property
    def by_prompt(self) -> frozenset[str]:
        """Keys of the states that are made for the rows of a data set."""
        inits = {key: stage.declared.init for key, _, stage in self.keyed}
        return frozenset(
            key for key, init in inits.items() if init is not None and {"size", "rows"} & {*parameters(init)}
        )

    def _call(self, key: str, stage: Stage, states: Mapping[str, State], *args: Any, **kwargs: Any) -> Any:
        if key in states:
            kwargs["state"] = states[key]
        return stage(*args, **kwargs)

    def run(self, axis: str, states: Mapping[str, State], *args: Any, **kwargs: Any) -> Any:
        """Call the function of a 'one' axis before the update (curriculum, budget, guidance, sampling)."""
        for key, each, stage in self.keyed:
            if each == axis:
                return self._call(key, stage, states, *args, **kwargs)
        raise MethodError(f"the method fills no axis '{axis}'")

    def pick(self, states: Mapping[str, State], *, count: int, rng: torch.Generator) -> tuple[Tensor, dict[str, State]]:
        """Curriculum axis: rows [count] of the data set, and the states with the curriculum's advanced."""
        for key, axis, stage in self.keyed:
            if axis == "curriculum":
                rows, state = self._call(key, stage, states, count=count, rng=rng)
                return rows, {**states, key: state}
        raise MethodError("the method fills no curriculum")

    def observe(
        self, states: Mapping[str, State], *, batch: Batch, rollouts: Sequence[Rollout], small_groups: bool = True
    ) -> dict[str, State]:
        """New states after the step's rollouts were scored.

        Args:
            rollouts: of each row of the batch.
            small_groups: False keeps from a function what is too small for it; where that leaves nothing, it is not
                called.
        """
        new = dict(states)
        for key, _, stage in self.keyed:
            if stage.declared.on_rollouts is not None:
                seen, kept = batch, rollouts
                if not small_groups:
                    rows = group_rows(batch.groups, stage.declared.group_size)
                    if not rows.numel():
                        continue
                    seen, kept = batch.select(rows), [rollouts[i] for i in rows.tolist()]
                new[key] = stage.hook("on_rollouts", state=states.get(key), batch=seen, rollouts=kept)
        return new

    def update(self, states: Mapping[str, State], **given: Any) -> dict[str, State]:
        """New states after the step's last update; `given` holds batch, rollouts, access."""
        new = dict(states)
        for key, _, stage in self.keyed:
            if stage.declared.on_step_end is not None:
                new[key] = stage.hook("on_step_end", state=states.get(key), **given)
        return new

    def attach(self, batch: Batch, access: ModelAccess, states: Mapping[str, State]) -> Batch:
        """The batch with the fields that the method makes of its rollouts."""
        if not batch.size:
            return batch
        for key, _, stage in self.keyed:
            if stage.declared.on_scored is not None:
                batch = stage.hook("on_scored", batch, access, state=states.get(key))
        return batch

    def recall(self, states: Mapping[str, State]) -> list[Recall]:
        """Rollouts of earlier steps that are trained on as well."""
        found = [
            stage.hook("replay", state=states.get(key))
            for key, _, stage in self.keyed
            if stage.declared.replay is not None
        ]
        return [recall for recall in found if recall is not None]

    def shape(self, batch: Batch, states: Mapping[str, State]) -> Batch:
        """Shaping axis: the batch with its rewards shaped."""
        if not batch.size:
            return batch
        for key, axis, stage in self.keyed:
            if axis == "shaping":
                out = self._call(key, stage, states, batch)
                batch = out if isinstance(out, Batch) else batch.replace(rewards=out)
        return batch

    def keep(self, batch: Batch, states: Mapping[str, State], *, after_advantage: bool) -> Tensor:
        """Filter axis: rows [n] int64 that the filters before or after the advantage leave, in the order to train on.

        A filter gives keep [N] bool, or rows [n] int64 where it moves or repeats rollouts.
        """
        rows = torch.arange(batch.size, device=batch.device)
        for key, axis, stage in self.keyed:
            if batch.size and axis == "filter" and stage.declared.after_advantage == after_advantage:
                out = self._call(key, stage, states, batch)
                rows = rows[out[rows]] if out.dtype == torch.bool else out[torch.isin(out, rows)]
        return rows

    @property
    def refill_rounds(self) -> int:
        """Most rounds of sampling a step."""
        return max((stage.refill_rounds for axis, stage in self.stages() if axis == "filter"), default=1)

    def assign(self, batch: Batch, states: Mapping[str, State]) -> Batch:
        """Advantage and credit axes: the batch with `advantages` [N, T], and whatever later axes attach to it.

        Where the advantage axis gives one number a rollout, `outcome_advantage` [N] keeps it as it was before credit;
        where it gives one a token, `base_advantages` [N, T] does.
        """
        if not batch.size:
            none = torch.zeros(0, dtype=batch.dtype, device=batch.device)
            return batch.replace(advantages=_per_token(none, batch)).with_rollouts(outcome_advantage=none)
        for key, axis, stage in self.keyed:
            if axis == "advantage":
                out = self._call(key, stage, states, batch)
                if not isinstance(out, Batch) and out.ndim == 1:
                    batch = batch.with_rollouts(outcome_advantage=out.detach())
                batch = out if isinstance(out, Batch) else batch.replace(advantages=_per_token(out, batch))
                if "outcome_advantage" not in batch:
                    batch = batch.with_tokens(base_advantages=batch.advantages)
            elif axis == "credit":
                out = self._call(key, stage, states, batch, batch.advantages)
                batch = out if isinstance(out, Batch) else batch.replace(advantages=_per_token(out, batch))
        for key, _, stage in self.keyed:
            if stage.declared.on_advantages is not None:
                batch = stage.hook("on_advantages", batch, state=states.get(key))
        return batch

    def prepare(self, batch: Batch, states: Mapping[str, State]) -> Batch:
        """Everything between scoring and the update, in groups of whatever size: shaping, filters, advantage, credit."""
        return self.prepared(batch, states, small_groups=True).batch

    def prepared(self, batch: Batch, states: Mapping[str, State], *, small_groups: bool = False) -> Prepared:
        """`prepare` with what became of each rollout, of groups that are large enough (`comparable`).

        Args:
            small_groups: keep also groups of which the filters leave too few rollouts.
        """
        shaped = self.shape(batch, states)
        filtered = self.keep(shaped, states, after_advantage=False)
        before = filtered if small_groups else filtered[self.comparable(shaped.select(filtered))]
        assigned = self.assign(shaped.select(before), states)
        after = self.keep(assigned, states, after_advantage=True)
        last = after if small_groups else after[self.comparable(assigned.select(after), after_advantage=True)]
        return Prepared(shaped, filtered, before, assigned, before[after], before[last], assigned.select(last))

    def weights(self, batch: Batch, states: Mapping[str, State]) -> Tensor:
        """Aggregation axis: w [N, T] of loss = sum w l."""
        return self.run("aggregation", states, batch)

    def loss(self, batch: Batch, states: Mapping[str, State]) -> Loss:
        """Ratio, surrogate, aggregation and regularizers, or the objective and regularizers, of a minibatch.

        If the batch holds the field `weight` [N, T] (a micro-batch of a larger minibatch), it is used as the
        aggregation's weights.
        """
        batch, correction = self.correct(batch, states)
        weight = batch["weight"] if "weight" in batch else self.weights(batch, states)
        corrected = weight if correction is None else weight * correction
        policy: Tensor | None = None
        ratios: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for key, axis, stage in self.keyed:
            if axis == "ratio":
                ratios = self._call(key, stage, states, batch)
            elif axis == "surrogate":
                policy = (corrected * self._call(key, stage, states, batch, ratios, batch.advantages)).sum()
            elif axis == "objective":
                policy = self._call(key, stage, states, batch)
            elif axis == "regularizer":
                term = self._call(key, stage, states, batch)
                if term.ndim == 0 and "weight" in batch and not stage.declared.couples:
                    raise MethodError(f"the regularizer '{stage.name}' gives a scalar: declare it with couples=True")
                terms[key.removeprefix("regularizer/")] = (weight * term).sum() if term.ndim == 2 else term
        assert policy is not None
        total = reduce(torch.add, terms.values(), policy)
        return Loss(total, policy, terms, ratios, None if ratios is None else corrected, correction)

    def correct(self, batch: Batch, states: Mapping[str, State]) -> tuple[Batch, Tensor | None]:
        """Correction axis: the batch without the tokens that were rejected in its loss mask, and what the losses of the
        others are multiplied by [N, T]; None if the method has no correction."""
        whole, keep = None, batch.loss_mask
        for key, axis, stage in self.keyed:
            if axis == "correction":
                out = self._call(key, stage, states, batch)
                if out.dtype == torch.bool:
                    keep, out = keep & out, out.to(batch.dtype)
                whole = out if whole is None else whole * out
        return (batch if whole is None else batch.replace(loss_mask=keep)), whole


def _per_token(advantages: Tensor, batch: Batch) -> Tensor:
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(batch.mask.shape)
    return advantages.detach()
