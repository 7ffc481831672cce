"""A method with its states at a step: its functions are called in the order of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cohort.methods.axis import LOSS_AXES
from cohort.methods.stage import MethodError, Stage, parameters
from cohort.reductions.groups import group_rows
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import ModelAccess, Notes, Pool, Sampler
from cohort.types.declare import State
from cohort.types.replay import Replay

if TYPE_CHECKING:
    from cohort.methods.method import Method


class Loss(NamedTuple):
    """The loss of a minibatch, and its parts.

    Attributes:
        total: scalar to minimise.
        policy: scalar, the part of the surrogate or objective.
        regularizers: name -> scalar, the loss of the critic among them.
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
    """The batch of N rollouts after shaping, filters, advantage and credit, with what became of each rollout.

    Attributes:
        shaped: the batch with its rewards shaped.
        filtered, before: rows of it that the filters before the advantage leave, and those of them whose groups they left
            large enough.
        assigned: those with their advantages.
        passed, trained: rows of `shaped` that the filters after the advantage leave, and those that are trained on.
        batch: these.
        metrics: name -> what the functions report for the log.
    """

    shaped: Batch
    filtered: Tensor
    before: Tensor
    assigned: Batch
    passed: Tensor
    trained: Tensor
    batch: Batch
    metrics: dict[str, float]


class Bound(NamedTuple):
    """A function of a method with its hyperparameters, its state and the step's information filled in.

    Attributes:
        key: of its state.
        stage: the axis function, with what it declares.
        call: takes what is left.
    """

    key: str
    stage: Stage
    call: Callable[..., Any]


@dataclass(frozen=True)
class BoundMethod:
    """A method with its states, at a step; made by `Method.bind`. What advances states gives them back anew.

    A function of the axes shaping, advantage and credit, and an `on_advantages` hook, may return
    (result, metrics): name -> number, for the log.

    Attributes:
        states: key -> state of each function that has one.
        info: where the run stands.
    """

    method: Method
    states: Mapping[str, State] = field(default_factory=dict)
    info: StepInfo = field(default_factory=StepInfo)

    def with_states(self, states: Mapping[str, State]) -> BoundMethod:
        """The method with other states, at the same step."""
        return replace(self, states=states)

    def _given(self, key: str) -> dict[str, Any]:
        return {"info": self.info, **({"state": self.states[key]} if key in self.states else {})}

    @cached_property
    def _axes(self) -> dict[str, list[Bound]]:
        """The functions of each axis, in their order."""
        out: dict[str, list[Bound]] = {}
        for key, axis, stage in self.method.keyed:
            out.setdefault(axis, []).append(Bound(key, stage, stage.bind(**self._given(key))))
        return out

    def _hooks(self, name: str, **given: Any) -> Iterator[Bound]:
        """The hooks of a name, in their order, each given what it names."""
        for key, _, stage in self.method.keyed:
            if getattr(stage.declared, name) is not None:
                call = stage.bind_hook(name, state=self.states.get(key), info=self.info, **given)
                yield Bound(key, stage, call)

    # rollouts ------------------------------------------------------------------------------------------------------

    def pick(
        self, *, count: int, rng: torch.Generator, pool: Pool | None = None
    ) -> tuple[Tensor, dict[str, State], Notes]:
        """Curriculum axis: rows [count] of the data set, the states with the curriculum's advanced, and the notes that it
        leaves on the requests of each row."""
        (curriculum,) = self._axes["curriculum"]
        given = {**self._given(curriculum.key), "count": count, "rng": rng, "pool": pool}
        rows, state, *notes = curriculum.stage.bind(**given)()
        return rows, {**self.states, curriculum.key: state}, notes[0] if notes else ()

    @property
    def in_rounds(self) -> bool:
        """True if the budget is asked again after each round of sampling, until it gives nothing more."""
        return "drawn" in parameters(self._axes["budget"][0].stage.fn)

    def budget(self, rows: Tensor, *, group_size: int, **more: Any) -> tuple[Tensor, Notes]:
        """Budget axis: how many rollouts [n] int64 each of the rows [n] of the data set gets, and notes on their requests.

        Args:
            more: what else the function may name (see `cohort.axes.budget`).
        """
        (budget,) = self._axes["budget"]
        out: Tensor | tuple[Tensor, Notes] = budget.stage.bind(
            **self._given(budget.key), group_size=group_size, **more
        )(rows)
        return (out, ()) if isinstance(out, Tensor) else out

    def guidance(self, requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
        """Guidance axis: scored rollouts for requests, drawn with `sampler`."""
        (guidance,) = self._axes["guidance"]
        rollouts: list[Rollout] = guidance.call(requests, sampler)
        return rollouts

    def sampling(self, requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
        """Sampling axis: rollouts for requests, not scored."""
        (sampling,) = self._axes["sampling"]
        rollouts: list[Rollout] = sampling.call(requests, sampler)
        return rollouts

    def on_scored(self, batch: Batch, access: ModelAccess) -> Batch:
        """The batch with the fields that the method makes of its rollouts."""
        for hook in self._hooks("on_scored") if batch.size else ():
            batch = hook.call(batch, access)
        return batch

    def on_rollouts(self, batch: Batch, rollouts: Sequence[Rollout]) -> dict[str, State]:
        """New states after the step's rollouts were scored.

        Rollouts that go on in a later step are left out. Groups that are too small for a function are kept from it; where that
        leaves nothing, it is not called.

        Args:
            rollouts: of each row of the batch.
        """
        if self.method.waits:
            over = [i for i, rollout in enumerate(rollouts) if rollout is None or not rollout.waits]
            batch, rollouts = batch.select(torch.tensor(over, dtype=torch.int64)), [rollouts[i] for i in over]
        new = dict(self.states)
        for key, _, stage in self.method.keyed:
            if stage.declared.on_rollouts is None:
                continue
            rows = group_rows(batch.groups, stage.group_size)
            seen = batch.select(rows)
            kept = rollouts if seen is batch else [rollouts[i] for i in rows.tolist()]
            if seen.size:
                given = {"batch": seen, "rollouts": kept, "state": self.states.get(key), "info": self.info}
                new[key] = stage.bind_hook("on_rollouts", **given)()
        return new

    # the whole batch -----------------------------------------------------------------------------------------------

    def comparable(self, batch: Batch) -> Tensor:
        """Rows [n] int64 of the groups that have enough rollouts for the method."""
        return group_rows(batch.groups, self.method.group_size)

    def prepare(self, batch: Batch) -> Prepared:
        """Everything between scoring and the update: shaping, filters, advantage, credit; with what became of each rollout.

        Groups that the filters leave with too few rollouts for what comes next are left out.
        """
        shaped, metrics = self._shape(batch)
        filtered = self.keep(shaped)
        before = filtered[_large(shaped, filtered, self.method.group_size)]
        assigned, more = self._assign(shaped.select(before))
        after = self.keep(assigned, after_advantage=True)
        last = after[_large(assigned, after, self.method.least_group(LOSS_AXES))]
        batch = assigned.select(last)
        return Prepared(shaped, filtered, before, assigned, before[after], before[last], batch, {**metrics, **more})

    def shape(self, batch: Batch) -> Batch:
        """Shaping axis: the batch with its rewards shaped."""
        return self._shape(batch)[0]

    def _shape(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        metrics: dict[str, float] = {}
        for shaping in self._axes.get("shaping", ()) if batch.size else ():
            out = _reported(shaping.call(batch), metrics)
            batch = out if isinstance(out, Batch) else batch.replace(rewards=out)
        return batch, metrics

    def keep(self, batch: Batch, *, after_advantage: bool = False, drawing: bool = False) -> Tensor:
        """Filter axis: rows [n] int64 that the filters before or after the advantage leave, in the order to train on.

        A filter gives keep [N] bool, or rows [n] int64 where it moves or repeats rollouts.

        Args:
            drawing: rollouts are still being drawn: filters count whose groups fill the step up in the end.
        """
        rows = torch.arange(batch.size, device=batch.device)
        for filtering in self._axes.get("filter", ()) if batch.size else ():
            if filtering.stage.declared.refill_share and not drawing:
                continue
            if filtering.stage.declared.after_advantage == after_advantage:
                out = filtering.call(batch)
                rows = rows[out[rows]] if out.dtype == torch.bool else out[torch.isin(out, rows)]
        return rows

    def assign(self, batch: Batch) -> Batch:
        """Advantage and credit axes: the batch with `advantages` [N, T], and whatever later axes attach to it.

        Where the advantage axis gives one number a rollout, `outcome_advantage` [N] keeps it as it was before credit;
        where it gives one a token, `base_advantages` [N, T] does.
        """
        return self._assign(batch)[0]

    def _assign(self, batch: Batch) -> tuple[Batch, dict[str, float]]:
        metrics: dict[str, float] = {}
        if not batch.size:
            none = torch.zeros(0, dtype=batch.dtype, device=batch.device)
            return batch.replace(advantages=_per_token(none, batch)).with_rollouts(outcome_advantage=none), metrics
        (advantage,) = self._axes["advantage"]
        out = _reported(advantage.call(batch), metrics)
        if not isinstance(out, Batch) and out.ndim == 1:
            batch = batch.with_rollouts(outcome_advantage=out.detach())
        batch = out if isinstance(out, Batch) else batch.replace(advantages=_per_token(out, batch))
        if "outcome_advantage" not in batch:
            batch = batch.with_tokens(base_advantages=batch.advantages)
        for credit in self._axes.get("credit", ()):
            out = _reported(credit.call(batch, batch.advantages), metrics)
            batch = out if isinstance(out, Batch) else batch.replace(advantages=_per_token(out, batch))
        for hook in self._hooks("on_advantages"):
            batch = _reported(hook.call(batch), metrics)
        return batch, metrics

    def replay(self) -> list[Replay]:
        """Rollouts of earlier steps that are trained on as well."""
        found = [hook.call() for hook in self._hooks("replay")]
        return [replay for replay in found if replay is not None]

    # a minibatch ---------------------------------------------------------------------------------------------------

    def weights(self, batch: Batch) -> Tensor:
        """Aggregation axis: w [N, T] of loss = sum w l; 0 for rows that belong to no group, unless it reads these."""
        return _of_groups(self._axes["aggregation"][0], batch)

    def correct(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Correction axis: the batch without the tokens that were rejected in its loss mask, and what the losses of the
        others are multiplied by [N, T]; None if the method has no correction."""
        whole, keep = None, batch.loss_mask
        for correction in self._axes.get("correction", ()):
            out = correction.call(batch)
            if out.dtype == torch.bool:
                keep, out = keep & out, out.to(batch.dtype)
            whole = out if whole is None else whole * out
        return (batch if whole is None else batch.replace(loss_mask=keep)), whole

    def loss(self, batch: Batch) -> Loss:
        """Ratio, surrogate and aggregation, or the objective, of a minibatch; and critic and regularizers.

        If the batch holds the field `weight` [N, T] (a micro-batch of a larger minibatch), it is used as the
        aggregation's weights.

        Raises:
            MethodError: a term of a micro-batch is a scalar, and its function does not declare that it couples rollouts.
        """
        batch, correction = self.correct(batch)
        weight = batch["weight"] if "weight" in batch else self.weights(batch)
        corrected = weight if correction is None else weight * correction
        if "objective" in self._axes:
            ratios, used = None, None
            policy = _of_groups(self._axes["objective"][0], batch).sum()
        else:
            ratios, used = self._axes["ratio"][0].call(batch), corrected
            policy = (corrected * self._axes["surrogate"][0].call(batch, ratios, batch.advantages)).sum()
        terms: dict[str, Tensor] = {}
        for bound in (*self._axes.get("critic", ()), *self._axes.get("regularizer", ())):
            term, (axis, name) = _of_groups(bound, batch), bound.key.split("/", 1)
            if term.ndim == 0 and "weight" in batch and not bound.stage.declared.couples:
                raise MethodError(f"the {axis} '{bound.stage.name}' gives a scalar: declare it with couples=True")
            terms[name] = (weight * term).sum() if term.ndim == 2 else term
        return Loss(reduce(torch.add, terms.values(), policy), policy, terms, ratios, used, correction)

    # the end of the step -------------------------------------------------------------------------------------------

    def on_step_end(self, batch: Batch, rollouts: Sequence[Rollout], access: ModelAccess) -> dict[str, State]:
        """New states after the step's last update.

        Args:
            batch: what was trained on, with what the last updates made of it.
            rollouts: of each row of the batch.
        """
        new = dict(self.states)
        for hook in self._hooks("on_step_end", batch=batch, rollouts=rollouts, access=access):
            new[hook.key] = hook.call()
        return new


def _of_groups(bound: Bound, batch: Batch) -> Tensor:
    """What a function gives for the rows that belong to a group, 0 [N, T] for the others; it is given these as well if it
    declares so."""
    apart = batch.get("auxiliary")
    if apart is None or bound.stage.declared.auxiliary or not bool(apart.any()):
        whole: Tensor = bound.call(batch)
        return whole
    rows = (apart == 0).nonzero()[:, 0]
    if not rows.numel():
        return batch.logp * 0
    out: Tensor = bound.call(batch.select(rows))
    return out.new_zeros(batch.mask.shape).index_put((rows,), out) if out.ndim == 2 else out


def _reported(out: Any, metrics: dict[str, float]) -> Any:
    """The result of a function that may report numbers for the log; those are added to `metrics`."""
    if isinstance(out, tuple):
        out, reported = out
        metrics.update(reported)
    return out


def _large(batch: Batch, rows: Tensor, least: int) -> Tensor:
    """Those of `rows` (their places) whose groups still have enough rollouts, or lost none."""
    groups = batch.groups
    index = groups.index[rows]
    before = groups.size
    left = torch.bincount(index, minlength=groups.count)
    return (left >= before.clamp(max=least))[index].nonzero()[:, 0]


def _per_token(advantages: Tensor, batch: Batch) -> Tensor:
    if advantages.ndim == 1:
        advantages = advantages[:, None].expand(batch.mask.shape)
    return advantages.detach()
