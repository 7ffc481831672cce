"""Declarations: what an axis function needs beyond the rewards and the current log-probabilities.

A declaration is data about a function; it changes nothing of what the function does when called by hand. The loop
reads it and computes what the composed method declares, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# A state is a plain dict of tensors, numbers, strings and dicts of those, so that checkpointing it is free.
State = dict[str, Any]


@dataclass(frozen=True)
class Declaration:
    """What an axis function declares.

    Attributes:
        needs: field -> None, or a predicate over the hyperparameters that says whether the field is needed.
        init: hyperparameters -> state at the start of training; also of `size`, `steps`, and `rows`, the data's columns.
        on_scored: (batch, access, state, info) -> batch, as soon as rollouts are scored: fields made of texts, columns or
            further passes of a model, which `provides` names.
        on_rollouts: (batch, state, rollouts, info) -> state, once a step, with all scored rollouts before any filter.
        on_advantages: (batch, state, info) -> batch, or (batch, metrics), after credit, with the whole batch, before it is
            cut into minibatches.
        replay: (state) -> Replay or None: rollouts of earlier steps to train on as well (see `cohort.types.replay`).
        on_step_end: (batch, state, rollouts, access, info) -> state, after the step's last update, with `logp` as it was
            in it.
        couples: True if the value at one rollout depends on the log-probabilities of another, so that the loss of a
            minibatch is not the sum of the losses of its parts.
        auxiliary: (loss axes) True if it reads rows that belong to no group that is compared: stored completions beside the
            step's rollouts, and what guidance marks as such (`Rollout.auxiliary`). Other functions do not see them.
        group_size: smallest group with which it makes sense, or the name of the hyperparameter that is it; 1 if it is not
            relative to a group.
        after_advantage: (filters) it removes rollouts after advantages were taken in the full group.
        processes: (sampling) its requests have a processor, which only the embedded engine takes.
        waits: (sampling) it may leave rollouts that go on in a later step (`Rollout.waits`).
        refill: (filters) name of the hyperparameter with the most rounds of sampling that may replace what it removed.
        refill_share: (filters that refill) name of the hyperparameter with the share of a step's groups that suffices. What it
            removes then fills the step up, and is trained on.
        offline: True if it can learn from stored completions, as a file of pairs holds them.
        on_policy: why it needs rollouts of the very weights that it updates, and is wrong for older ones; empty if it does not.
            For what a ratio leaves out, the weights of a correction make up.
        teacher: True if it needs a slowly moving copy of the policy; its hyperparameters `teacher_decay` and
            `teacher_every` say how slowly, and `teacher_unbiased`, if it has that, whether it keeps less at first.
        columns: hyperparameters that name a column of the data set, which every row must have.
        sparse_columns: the same, but a row may lack it where another has it.
        components: hyperparameters that name a reward of the run (with weight 0 if it should not count by itself), or several.
        functions: hyperparameters that name a function of the user's, as path.py:function -> how it is called, and what
            it returns. It is optional where the parameter has a default.
        probes: (optimizer) True if it asks for losses in place of gradients (see `cohort.types.probing`).
        provides: fields that its `on_scored` hook adds, or that sampling or guidance puts into `Rollout.fields`.
    """

    needs: dict[str, Callable[..., bool] | None] = field(default_factory=dict)
    init: Callable[..., State] | None = None
    on_rollouts: Callable[..., State] | None = None
    on_scored: Callable[..., Any] | None = None
    on_advantages: Callable[..., Any] | None = None
    replay: Callable[..., Any] | None = None
    on_step_end: Callable[..., State] | None = None
    couples: bool = False
    auxiliary: bool = False
    group_size: int | str = 1
    after_advantage: bool = False
    processes: bool = False
    waits: bool = False
    refill: str | None = None
    refill_share: str | None = None
    probes: bool = False
    offline: bool = False
    on_policy: str = ""
    teacher: bool = False
    columns: tuple[str, ...] = ()
    sparse_columns: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    functions: Mapping[str, str] = field(default_factory=dict)
    provides: tuple[str, ...] = ()


def declaration(fn: Callable[..., Any]) -> Declaration:
    """The declaration of a function; an empty one if it made none."""
    return getattr(fn, "_cohort_declaration", Declaration())


def _amend(fn: F, **changes: Any) -> F:
    fn._cohort_declaration = replace(declaration(fn), **changes)  # type: ignore[attr-defined]
    return fn


def needs(*fields: str, **conditional: Callable[..., bool]) -> Callable[[F], F]:
    """Declare batch fields that a function reads.

    `@needs("ref_logp", entropy=lambda mixing: mixing == "entropy")` needs `ref_logp` always, and `entropy` where the
    predicate, called with the hyperparameters it names, says so.
    """

    def decorate(fn: F) -> F:
        return _amend(fn, needs={**declaration(fn).needs, **dict.fromkeys(fields), **conditional})

    return decorate


def hooks(
    *,
    init: Callable[..., State] | None = None,
    on_rollouts: Callable[..., State] | None = None,
    on_scored: Callable[..., Any] | None = None,
    on_advantages: Callable[..., Any] | None = None,
    replay: Callable[..., Any] | None = None,
    on_step_end: Callable[..., State] | None = None,
) -> Callable[[F], F]:
    """Declare what else of an axis function the loop calls, and when (see `Declaration`).

    A hook names the keyword arguments it wants; hyperparameters are its keyword-only ones.
    """
    given = {
        "init": init,
        "on_rollouts": on_rollouts,
        "on_scored": on_scored,
        "on_advantages": on_advantages,
        "replay": replay,
        "on_step_end": on_step_end,
    }
    return lambda fn: _amend(fn, **{k: v for k, v in given.items() if v is not None})


def declare(
    *,
    couples: bool | None = None,
    auxiliary: bool | None = None,
    group_size: int | str | None = None,
    after_advantage: bool | None = None,
    processes: bool | None = None,
    waits: bool | None = None,
    refill: str | None = None,
    refill_share: str | None = None,
    probes: bool | None = None,
    offline: bool | None = None,
    on_policy: str | None = None,
    teacher: bool | None = None,
    columns: tuple[str, ...] | None = None,
    sparse_columns: tuple[str, ...] | None = None,
    components: tuple[str, ...] | None = None,
    functions: Mapping[str, str] | None = None,
    provides: tuple[str, ...] | None = None,
) -> Callable[[F], F]:
    """Declare the traits of a function (see `Declaration`)."""
    given = {
        "couples": couples,
        "auxiliary": auxiliary,
        "group_size": group_size,
        "after_advantage": after_advantage,
        "processes": processes,
        "waits": waits,
        "refill": refill,
        "refill_share": refill_share,
        "probes": probes,
        "offline": offline,
        "on_policy": on_policy,
        "teacher": teacher,
        "columns": columns,
        "sparse_columns": sparse_columns,
        "components": components,
        "functions": functions,
        "provides": provides,
    }
    return lambda fn: _amend(fn, **{k: v for k, v in given.items() if v is not None})
