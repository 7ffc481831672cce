"""A method fills axes of the training step with functions; methods compose.

    method("dapo") | method("gdpo") | method("sage")

On an axis that takes many functions they append; on an axis that takes one, two different fillings are a conflict that
names the axis and both methods. An axis left alone keeps GRPO's default. Everything here is bookkeeping: what a method
computes stands in `axes/` and `recipes/`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation, budget, curriculum, guidance, optimizer, ratio, sampling, surrogate
from cohort.axes.declare import Declaration, State, declaration
from cohort.axes.groups import group_rows
from cohort.axes.memory import Recall
from cohort.axes.tools import Probe
from cohort.batch import Batch, Rollout
from cohort.errors import UsageError

# Every axis in the order of the training step: name -> (question, how many functions it takes).
AXES: dict[str, tuple[str, str]] = {
    "curriculum": ("which prompts next", "one"),
    "budget": ("how many rollouts each", "one"),
    "guidance": ("what is put into the prompt", "one"),
    "sampling": ("how a rollout is drawn", "one"),
    "shaping": ("rewards -> rewards", "many"),
    "filter": ("what is kept", "many"),
    "advantage": ("rewards -> advantages", "one"),
    "credit": ("advantages -> per-token advantages", "many"),
    "correction": ("sampler's policy -> trainer's policy", "many"),
    "ratio": ("importance ratio", "one"),
    "surrogate": ("ratio x advantage -> token losses", "one"),
    "objective": ("a loss that is no clipped surrogate", "one"),
    "regularizer": ("added terms", "many"),
    "aggregation": ("tokens -> scalar", "one"),
    "optimizer": ("the parameter update", "one"),
}
ONE = tuple(name for name, (_, kind) in AXES.items() if kind == "one")
MANY = tuple(name for name, (_, kind) in AXES.items() if kind == "many")
HOOKS = ("init", "observe", "attach", "annotate", "recall", "update")
# Axes whose functions draw rollouts; what they provide stands in the rollouts themselves.
DRAWING_AXES = ("guidance", "sampling")
# Axes whose functions run while the loss is taken, on a minibatch and with gradient.
LOSS_AXES = ("correction", "ratio", "surrogate", "objective", "regularizer", "aggregation")


class MethodError(UsageError):
    """A method that does not exist, does not compose, or was given a hyperparameter it does not take."""


class ConflictError(MethodError):
    """Two methods fill the same axis."""


def _parameters(fn: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(fn).parameters


def _accepted(fn: Callable[..., Any], available: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in available.items() if k in _parameters(fn)}


@dataclass(frozen=True)
class Stage:
    """An axis function with its hyperparameters; made by `use`.

    Attributes:
        fn: the axis function.
        hyper: hyperparameters of the function and its hooks.
        source: name of the method that put it there.
    """

    fn: Callable[..., Any]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        return self.fn.__name__

    @property
    def declared(self) -> Declaration:
        return declaration(self.fn)

    @property
    def all_hyper(self) -> dict[str, Any]:
        """Hyperparameters with the defaults of the function and of its hooks filled in."""
        out: dict[str, Any] = {}
        for fn in (self.fn, *self._hooks()):
            for name, parameter in _parameters(fn).items():
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty:
                    out.setdefault(name, parameter.default)
        return {**out, **self.hyper}

    def has_default(self, name: str) -> bool:
        """True if the function or a hook has a default for a hyperparameter."""
        taken = (_parameters(fn).get(name) for fn in (self.fn, *self._hooks()))
        return any(each is not None and each.default is not each.empty for each in taken)

    @property
    def needs(self) -> frozenset[str]:
        """Fields that the function reads, given its hyperparameters."""
        hyper = self.all_hyper
        return frozenset(
            name for name, when in self.declared.needs.items() if when is None or when(**_accepted(when, hyper))
        )

    @property
    def refill_rounds(self) -> int:
        """Most rounds of sampling that may replace what a filter removed; 1 if it does not refill."""
        return int(self.all_hyper[self.declared.refill]) if self.declared.refill else 1

    def _hooks(self) -> tuple[Callable[..., Any], ...]:
        declared = self.declared
        found = (getattr(declared, name) for name in HOOKS)
        return tuple(hook for hook in found if hook is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **_accepted(self.fn, kwargs), **_accepted(self.fn, self.hyper))

    def hook(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a hook with the hyperparameters and keyword arguments that it names."""
        fn = getattr(self.declared, name)
        return fn(*args, **_accepted(fn, {**self.all_hyper, **kwargs}))


def use(fn: Callable[..., Any], **hyper: Any) -> Stage:
    """An axis function with hyperparameters, ready for a slot of a method.

    Raises:
        MethodError: the function has no such hyperparameter.
    """
    stage = Stage(fn, hyper)
    known = {
        name
        for each in (fn, *stage._hooks())
        for name, parameter in _parameters(each).items()
        if parameter.kind is parameter.KEYWORD_ONLY or name in hyper
    }
    unknown = set(hyper) - known
    if unknown:
        raise MethodError(f"{fn.__module__}.{fn.__name__} has no hyperparameter {', '.join(sorted(unknown))}")
    return stage


DEFAULTS: dict[str, Stage] = {
    "curriculum": use(curriculum.uniform),
    "budget": use(budget.equal),
    "guidance": use(guidance.none),
    "sampling": use(sampling.independent),
    "advantage": use(advantage.zscore),
    "ratio": use(ratio.token),
    "surrogate": use(surrogate.ppo_clip),
    "aggregation": use(aggregation.sequence_mean),
    "optimizer": use(optimizer.adamw),
}


def _same_as_default(axis: str, stage: Stage) -> bool:
    default = DEFAULTS.get(axis)
    return default is not None and stage.fn is default.fn and stage.all_hyper == default.all_hyper


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


@dataclass(frozen=True)
class Method:
    """Functions for the axes of the training step (see AXES); None or () leaves an axis at GRPO's default.

    Attributes:
        name: how it was asked for, as in "dapo+gdpo".
        lacks: what the method needs that is not built yet ("sampling", "vision"); such a method refuses to train.
    """

    curriculum: Stage | None = None
    budget: Stage | None = None
    guidance: Stage | None = None
    sampling: Stage | None = None
    shaping: tuple[Stage, ...] = ()
    filter: tuple[Stage, ...] = ()
    advantage: Stage | None = None
    credit: tuple[Stage, ...] = ()
    correction: tuple[Stage, ...] = ()
    ratio: Stage | None = None
    surrogate: Stage | None = None
    objective: Stage | None = None
    regularizer: tuple[Stage, ...] = ()
    aggregation: Stage | None = None
    optimizer: Stage | None = None
    name: str = ""
    lacks: str = ""

    def __post_init__(self) -> None:
        for axis in ONE:
            stage = getattr(self, axis)
            if isinstance(stage, (list, tuple)) or not (stage is None or isinstance(stage, Stage)):
                raise MethodError(f"axis '{axis}' takes one function, as use(function, ...); got {stage!r}")
        for axis in MANY:
            stages = getattr(self, axis)
            if isinstance(stages, Stage) or not all(isinstance(s, Stage) for s in stages):
                raise MethodError(f"axis '{axis}' takes a tuple of functions, as (use(function, ...),); got {stages!r}")
            object.__setattr__(self, axis, tuple(stages))
        if self.objective is not None:
            for axis in ("ratio", "surrogate"):
                if getattr(self, axis) is not None:
                    raise MethodError(f"an objective replaces ratio and surrogate, but '{axis}' is filled as well")
            if self.correction:
                raise MethodError(
                    f"a correction ({self.correction[0].name}) weighs token losses, but an objective "
                    f"({self.objective.name}) has none: leave the axis 'correction' or the 'objective' alone"
                )

    # composition ---------------------------------------------------------------------------------------------------

    def named(self, name: str) -> Method:
        """The same method under a name, which its functions carry as their source."""
        changes: dict[str, Any] = {"name": name}
        for axis in AXES:
            value = getattr(self, axis)
            if isinstance(value, Stage):
                changes[axis] = replace(value, source=name)
            elif value:
                changes[axis] = tuple(replace(stage, source=name) for stage in value)
        return replace(self, **changes)

    @property
    def filled(self) -> tuple[str, ...]:
        """The axes that the method fills with something else than GRPO's default."""
        return tuple(
            axis
            for axis in AXES
            if (stage := getattr(self, axis)) and not (isinstance(stage, Stage) and _same_as_default(axis, stage))
        )

    def __or__(self, other: Method) -> Method:
        """Compose: 'many' axes append, 'one' axes must not be filled twice.

        Raises:
            ConflictError: names the axis and both methods, and how to pick one.
        """
        changes: dict[str, Any] = {}
        for axis in ONE:
            mine, theirs = getattr(self, axis), getattr(other, axis)
            if theirs is None or mine == theirs or (mine is not None and _same_as_default(axis, theirs)):
                changes[axis] = mine
            elif mine is None or _same_as_default(axis, mine):
                changes[axis] = theirs
            else:
                raise _conflict(axis, mine, theirs)
        for axis in MANY:
            changes[axis] = _union(getattr(self, axis) + getattr(other, axis))
        if changes["objective"] is not None:
            for axis in ("ratio", "surrogate"):
                stage = changes[axis]
                if stage is not None and not _same_as_default(axis, stage):
                    raise _conflict("objective", changes["objective"], stage, replaced=axis)
                changes[axis] = None
            if changes["correction"]:
                raise _conflict("objective", changes["objective"], changes["correction"][0], replaced="correction")
        name = "+".join(n for n in (self.name, other.name) if n)
        lacks = ", ".join(_union(tuple(x for x in (self.lacks, other.lacks) if x)))
        return Method(**changes, name=name, lacks=lacks)

    def only(self, axes: Iterable[str]) -> Method:
        """The method with all other axes left alone.

        Raises:
            MethodError: no such axis, or the method does not fill it.
        """
        axes = tuple(axes)
        for axis in axes:
            if axis not in AXES:
                raise MethodError(f"there is no axis '{axis}' (axes: {', '.join(AXES)})")
            if not getattr(self, axis):
                raise MethodError(f"'{self.name}' does not fill the axis '{axis}' (it fills: {', '.join(self.filled)})")
        return Method(**{axis: getattr(self, axis) for axis in axes}, name=f"{self.name}:{','.join(axes)}")

    def without(self, axes: Iterable[str]) -> Method:
        """The method with some axes left alone."""
        axes = tuple(axes)
        unknown = [axis for axis in axes if axis not in AXES]
        if unknown:
            raise MethodError(f"there is no axis '{unknown[0]}' (axes: {', '.join(AXES)})")
        kept = {axis: getattr(self, axis) for axis in AXES if axis not in axes}
        return Method(**kept, name=f"{self.name}:{','.join('-' + axis for axis in axes)}", lacks=self.lacks)

    def over(self, host: Method) -> Method:
        """The method with the axes that it leaves alone taken from `host`."""
        taken = {axis: getattr(self, axis) or getattr(host, axis) for axis in AXES}
        if self.objective is not None:
            taken["ratio"] = taken["surrogate"] = None
            taken["correction"] = ()
        elif self.ratio is not None or self.surrogate is not None or self.correction:
            taken["objective"] = None
        return Method(**taken, name=self.name, lacks=self.lacks)

    # the functions of the step -------------------------------------------------------------------------------------

    def stage(self, axis: str) -> Stage:
        """The function of a 'one' axis, GRPO's default if the method leaves it alone."""
        stage = getattr(self, axis)
        return stage if stage is not None else DEFAULTS[axis]

    def stages(self) -> list[tuple[str, Stage]]:
        """(axis, function) of everything that runs in a step, defaults included, in the order of the step."""
        out: list[tuple[str, Stage]] = []
        for axis in AXES:
            if axis in MANY:
                out += [(axis, stage) for stage in getattr(self, axis)]
            elif axis == "objective":
                out += [(axis, self.objective)] if self.objective is not None else []
            elif self.objective is None or axis not in ("ratio", "surrogate"):
                out.append((axis, self.stage(axis)))
        return out

    def _keyed(self) -> list[tuple[str, str, Stage]]:
        seen: dict[str, int] = {}
        out = []
        for axis, stage in self.stages():
            key = f"{axis}/{stage.name}"
            seen[key] = seen.get(key, 0) + 1
            out.append((key if seen[key] == 1 else f"{key}/{seen[key]}", axis, stage))
        return out

    def needs(self, *, loss: bool) -> frozenset[str]:
        """Fields that the functions read: those of the loss axes, or those of the axes before the update."""
        return frozenset(n for axis, stage in self.stages() if (axis in LOSS_AXES) == loss for n in stage.needs)

    @property
    def couples(self) -> bool:
        """True if the loss of a minibatch is not the sum of the losses of its rollouts."""
        return self.objective is not None or any(stage.declared.couples for _, stage in self.stages())

    @property
    def provides(self) -> frozenset[str]:
        """Fields that the method makes for itself: in its rollouts, or with an `attach` hook."""
        return frozenset(name for _, stage in self.stages() for name in stage.declared.provides)

    @property
    def drawn(self) -> frozenset[str]:
        """Fields that the method's sampling or guidance puts into its rollouts."""
        drawing = (stage for axis, stage in self.stages() if axis in DRAWING_AXES)
        return frozenset(name for stage in drawing for name in stage.declared.provides)

    @property
    def columns(self) -> dict[str, str]:
        """Columns that every row of the data set must have -> the function that reads it."""
        named = ((stage.all_hyper[name], stage.name) for _, stage in self.stages() for name in stage.declared.columns)
        return {str(column): reader for column, reader in named if column is not None}

    @property
    def components(self) -> dict[str, str]:
        """Rewards that the run must have -> the function that reads it."""
        named = (
            (stage.all_hyper[name], stage.name) for _, stage in self.stages() for name in stage.declared.components
        )
        return {str(component): reader for component, reader in named if component is not None}

    @property
    def functions(self) -> list[tuple[str, str, str, Any]]:
        """(axis function, hyperparameter, how it is called, its value) of what the user writes for the method."""
        return [
            (stage.name, name, call, stage.hyper.get(name))
            for _, stage in self.stages()
            for name, call in stage.declared.functions.items()
            if stage.hyper.get(name) is not None or not stage.has_default(name)
        ]

    @property
    def offline(self) -> bool:
        """True if the method can learn from completions that somebody else wrote."""
        return any(stage.declared.offline for _, stage in self.stages())

    def _declared_with(self, trait: str) -> Stage | None:
        return next((stage for _, stage in self.stages() if getattr(stage.declared, trait)), None)

    @property
    def critic(self) -> Mapping[str, Any] | None:
        """Hyperparameters of the value function that the method trains; None if it trains none."""
        stage = self._declared_with("critic")
        return None if stage is None else stage.all_hyper

    @property
    def teacher(self) -> Mapping[str, Any] | None:
        """Hyperparameters of the slowly moving copy of the policy that the method needs; None if it needs none."""
        stage = self._declared_with("teacher")
        return None if stage is None else stage.all_hyper

    @property
    def group_size(self) -> int:
        """The smallest group with which the method makes sense."""
        return self._least(AXES)

    def _least(self, axes: Iterable[str]) -> int:
        """The smallest group with which the functions of some axes make sense."""
        return max(stage.declared.group_size for axis, stage in self.stages() if axis in axes)

    def comparable(self, batch: Batch, *, after_advantage: bool = False) -> Tensor:
        """Rows [n] int64 of the groups that have enough rollouts for the method, or for what comes after the advantage."""
        return group_rows(batch.groups, self._least(LOSS_AXES) if after_advantage else self.group_size)

    def init(self, *, size: int, steps: int = 1, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, State]:
        """States at the start of a run of `steps` steps on a data set of `size` prompts, whose columns `rows` holds."""
        return {
            key: stage.hook("init", size=size, steps=steps, rows=rows)
            for key, _, stage in self._keyed()
            if stage.declared.init is not None
        }

    @property
    def by_prompt(self) -> frozenset[str]:
        """Keys of the states that are made for the rows of a data set."""
        inits = {key: stage.declared.init for key, _, stage in self._keyed()}
        return frozenset(
            key for key, init in inits.items() if init is not None and {"size", "rows"} & {*_parameters(init)}
        )

    def _call(self, key: str, stage: Stage, states: Mapping[str, State], *args: Any, **kwargs: Any) -> Any:
        if key in states:
            kwargs["state"] = states[key]
        return stage(*args, **kwargs)

    def run(self, axis: str, states: Mapping[str, State], *args: Any, **kwargs: Any) -> Any:
        """Call the function of a 'one' axis before the update (curriculum, budget, guidance, sampling)."""
        for key, each, stage in self._keyed():
            if each == axis:
                return self._call(key, stage, states, *args, **kwargs)
        raise MethodError(f"the method fills no axis '{axis}'")

    def pick(self, states: Mapping[str, State], *, count: int, rng: torch.Generator) -> tuple[Tensor, dict[str, State]]:
        """Curriculum axis: rows [count] of the data set, and the states with the curriculum's advanced."""
        for key, axis, stage in self._keyed():
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
        for key, _, stage in self._keyed():
            if stage.declared.observe is not None:
                seen, kept = batch, rollouts
                if not small_groups:
                    rows = group_rows(batch.groups, stage.declared.group_size)
                    if not rows.numel():
                        continue
                    seen, kept = batch.select(rows), [rollouts[i] for i in rows.tolist()]
                new[key] = stage.hook("observe", state=states.get(key), batch=seen, rollouts=kept)
        return new

    def update(self, states: Mapping[str, State], **given: Any) -> dict[str, State]:
        """New states after the step's last update; `given` holds batch, rollouts, probe."""
        new = dict(states)
        for key, _, stage in self._keyed():
            if stage.declared.update is not None:
                new[key] = stage.hook("update", state=states.get(key), **given)
        return new

    def attach(self, batch: Batch, probe: Probe, states: Mapping[str, State]) -> Batch:
        """The batch with the fields that the method makes of its rollouts."""
        if not batch.size:
            return batch
        for key, _, stage in self._keyed():
            if stage.declared.attach is not None:
                batch = stage.hook("attach", batch, probe, state=states.get(key))
        return batch

    def recall(self, states: Mapping[str, State]) -> list[Recall]:
        """Rollouts of earlier steps that are trained on as well."""
        found = [
            stage.hook("recall", state=states.get(key))
            for key, _, stage in self._keyed()
            if stage.declared.recall is not None
        ]
        return [recall for recall in found if recall is not None]

    def shape(self, batch: Batch, states: Mapping[str, State]) -> Batch:
        """Shaping axis: the batch with its rewards shaped."""
        if not batch.size:
            return batch
        for key, axis, stage in self._keyed():
            if axis == "shaping":
                out = self._call(key, stage, states, batch)
                batch = out if isinstance(out, Batch) else batch.replace(rewards=out)
        return batch

    def keep(self, batch: Batch, states: Mapping[str, State], *, after_advantage: bool) -> Tensor:
        """Filter axis: rows [n] int64 that the filters before or after the advantage leave, in the order to train on.

        A filter gives keep [N] bool, or rows [n] int64 where it moves or repeats rollouts.
        """
        rows = torch.arange(batch.size, device=batch.device)
        for key, axis, stage in self._keyed():
            if batch.size and axis == "filter" and stage.declared.after_advantage == after_advantage:
                out = self._call(key, stage, states, batch)
                rows = rows[out[rows]] if out.dtype == torch.bool else out[torch.isin(out, rows)]
        return rows

    @property
    def refill_rounds(self) -> int:
        """Most rounds of sampling a step."""
        return max((stage.refill_rounds for stage in self.filter), default=1)

    def assign(self, batch: Batch, states: Mapping[str, State]) -> Batch:
        """Advantage and credit axes: the batch with `advantages` [N, T], and whatever later axes attach to it.

        Where the advantage axis gives one number a rollout, `outcome_advantage` [N] keeps it as it was before credit;
        where it gives one a token, `base_advantages` [N, T] does.
        """
        if not batch.size:
            none = torch.zeros(0, dtype=batch.dtype, device=batch.device)
            return batch.replace(advantages=_per_token(none, batch)).with_rollouts(outcome_advantage=none)
        for key, axis, stage in self._keyed():
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
        for key, _, stage in self._keyed():
            if stage.declared.annotate is not None:
                batch = stage.hook("annotate", batch, state=states.get(key))
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
        for key, axis, stage in self._keyed():
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
        for key, axis, stage in self._keyed():
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


def _union(items: tuple[Any, ...]) -> tuple[Any, ...]:
    out: list[Any] = []
    for item in items:
        if item not in out:
            out.append(item)
    return tuple(out)


def _conflict(axis: str, mine: Stage, theirs: Stage, replaced: str = "") -> ConflictError:
    first, second = mine.source or "the first method", theirs.source or "the second method"
    if replaced:
        what = f"'{first}' has an objective of its own ({mine.name}), which replaces the {replaced} of '{second}'"
    else:
        what = f"'{first}' ({mine.name}) and '{second}' ({theirs.name}) both fill the axis '{axis}', which takes one"
    axis2 = replaced or axis
    return ConflictError(
        f"conflict on the axis '{axis}': {what}. Leave it out of one of them: "
        f"'{first}:-{axis}+{second}' or '{first}+{second}:-{axis2}'"
    )
