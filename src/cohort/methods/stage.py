"""An axis function with its hyperparameters: what stands in a slot of a method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cohort.errors import UsageError
from cohort.types.declare import Declaration, declaration

# What the pipeline gives to functions and hooks that name it.
GIVEN = {"state", "info"}
HOOKS = ("init", "on_scored", "on_rollouts", "on_advantages", "replay", "on_step_end")


class MethodError(UsageError):
    """A method that does not exist, does not compose, or was given a hyperparameter it does not take."""


class ConflictError(MethodError):
    """Two methods fill the same axis."""


def parameters(fn: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function, by name.

    Raises:
        MethodError: a builtin, which has no signature.
    """
    try:
        return inspect.signature(fn).parameters
    except ValueError as error:
        raise MethodError(f"{fn!r} does not say what it takes: write a function or a lambda of your own") from error


def _accepted(fn: Callable[..., Any], available: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in available.items() if k in parameters(fn)}


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

    @cached_property
    def all_hyper(self) -> dict[str, Any]:
        """Hyperparameters with the defaults of the function and of its hooks filled in."""
        out: dict[str, Any] = {}
        for fn in (self.fn, *self._hooks()):
            for name, parameter in parameters(fn).items():
                if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty:
                    out.setdefault(name, parameter.default)
        return {**out, **self.hyper}

    def has_default(self, name: str) -> bool:
        """True if the function or a hook has a default for a hyperparameter."""
        taken = (parameters(fn).get(name) for fn in (self.fn, *self._hooks()))
        return any(each is not None and each.default is not each.empty for each in taken)

    @cached_property
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

    @property
    def group_size(self) -> int:
        """Smallest group with which it makes sense."""
        least = self.declared.group_size
        return least if isinstance(least, int) else int(self.all_hyper[least])

    @property
    def refill_share(self) -> float | None:
        """Share of a step's groups that suffices, where what it removed fills the step up; None if it does not."""
        return float(self.all_hyper[self.declared.refill_share]) if self.declared.refill_share else None

    def _hooks(self) -> tuple[Callable[..., Any], ...]:
        declared = self.declared
        found = (getattr(declared, name) for name in HOOKS)
        return tuple(hook for hook in found if hook is not None)

    @cached_property
    def _bound(self) -> tuple[Callable[..., Any], frozenset[str]]:
        """The function with its hyperparameters, and the names of what it takes besides."""
        return functools.partial(self.fn, **_accepted(self.fn, self.hyper)), frozenset(parameters(self.fn))

    @cached_property
    def _bound_hooks(self) -> dict[str, tuple[Callable[..., Any], frozenset[str]]]:
        """The same of each hook, by name."""
        hooks = {name: getattr(self.declared, name) for name in HOOKS}
        return {
            name: (functools.partial(hook, **_accepted(hook, self.all_hyper)), frozenset(parameters(hook)))
            for name, hook in hooks.items()
            if hook is not None
        }

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self.bind(**given)(*args)

    def bind(self, **given: Any) -> Callable[..., Any]:
        """The function with those of the keyword arguments that it names."""
        bound, takes = self._bound
        return functools.partial(bound, **{name: value for name, value in given.items() if name in takes})

    def bind_hook(self, name: str, **given: Any) -> Callable[..., Any]:
        """A hook with those of the keyword arguments that it names."""
        bound, takes = self._bound_hooks[name]
        return functools.partial(bound, **{name: value for name, value in given.items() if name in takes})


def use(fn: Callable[..., Any], **hyper: Any) -> Stage:
    """An axis function with hyperparameters, ready for a slot of a method.

    Raises:
        MethodError: the function has no such hyperparameter.
    """
    stage = Stage(fn, hyper)
    known = {
        name
        for each in (fn, *stage._hooks())
        for name, parameter in parameters(each).items()
        if parameter.kind is parameter.KEYWORD_ONLY or name in hyper
    }
    unknown = set(hyper) - (known - GIVEN)
    if unknown:
        raise MethodError(f"{fn.__module__}.{fn.__name__} has no hyperparameter {', '.join(sorted(unknown))}")
    return stage
