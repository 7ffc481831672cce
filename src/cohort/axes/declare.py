"""How an axis function says what it needs beyond the rewards and the current log-probabilities.

A declaration is data about a function; it changes nothing of what the function does when called by hand. The loop
reads it and computes what the composed method declares, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
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
        init: hyperparameters -> state at the start of training.
        observe: (batch, state) -> state, once a step, with all scored rollouts before any filter.
        annotate: (batch, state) -> batch, after credit, with the whole batch, before it is cut into minibatches.
        update: (batch, state) -> state, after the step's last update, with `logp` of the updated minibatches.
        couples: True if the value at one rollout depends on the log-probabilities of another, so that the loss of a
            minibatch is not the sum of the losses of its parts.
        whole_batch: True if it takes statistics over the whole batch; data-parallel training must gather first.
        group_size: smallest group with which it makes sense; 1 if it is not relative to a group.
        after_advantage: (filters) it removes rollouts after advantages were taken in the full group.
        refill: (filters) name of the hyperparameter with the most rounds of sampling that may replace what it removed.
        binary: True if it is defined for rewards 0 and 1 only.
        columns: hyperparameters that name a column of the data set, which every row must have.
        provides: (sampling, guidance) fields that it puts into `Rollout.fields`, for other axes to read.
    """

    needs: dict[str, Callable[..., bool] | None] = field(default_factory=dict)
    init: Callable[..., State] | None = None
    observe: Callable[..., State] | None = None
    annotate: Callable[..., Any] | None = None
    update: Callable[..., State] | None = None
    couples: bool = False
    whole_batch: bool = False
    group_size: int = 1
    after_advantage: bool = False
    refill: str | None = None
    binary: bool = False
    columns: tuple[str, ...] = ()
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
    observe: Callable[..., State] | None = None,
    annotate: Callable[..., Any] | None = None,
    update: Callable[..., State] | None = None,
) -> Callable[[F], F]:
    """Declare the functions that keep a stateful axis function's state, or attach fields to the whole batch."""

    def decorate(fn: F) -> F:
        given = {"init": init, "observe": observe, "annotate": annotate, "update": update}
        return _amend(fn, **{k: v for k, v in given.items() if v is not None})

    return decorate


def declare(
    *,
    couples: bool | None = None,
    whole_batch: bool | None = None,
    group_size: int | None = None,
    after_advantage: bool | None = None,
    refill: str | None = None,
    binary: bool | None = None,
    columns: tuple[str, ...] | None = None,
    provides: tuple[str, ...] | None = None,
) -> Callable[[F], F]:
    """Declare the traits of a function (see `Declaration`)."""

    def decorate(fn: F) -> F:
        given = {
            "couples": couples,
            "whole_batch": whole_batch,
            "group_size": group_size,
            "after_advantage": after_advantage,
            "refill": refill,
            "binary": binary,
            "columns": columns,
            "provides": provides,
        }
        return _amend(fn, **{k: v for k, v in given.items() if v is not None})

    return decorate
