"""Which arguments a function of the user's takes, and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

# Given to every reward function beside the columns of the data, in this order before and after them.
BEFORE = ("prompts", "completions", "completion_ids")
AFTER = ("trainer_state", "log_extra", "log_metric")
# Given to functions that name it, where it is no column of the data, and not to those that take everything.
LENT = ("max_new_tokens",)
# Given to builtin rewards that ask models and name them: whom they ask, and what the run calls their component.
JUDGES, COMPONENT = "judges", "component"
# Likewise, where environments answer the policy: the environment of each completion, at its end.
ENVIRONMENTS = "environments"


@dataclass(frozen=True)
class Interface:
    """How a function takes its arguments.

    Attributes:
        placed: names that can be given by their place only.
        named: names that can be given by name.
        required: those of both that have no default.
        everything: it takes any further name.
        waits: calling it gives something to be awaited.
    """

    placed: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    everything: bool = False
    waits: bool = False

    def takes(self, name: str) -> bool:
        """True if an argument of that name would be passed on to it."""
        return self.everything or self.names(name)

    def names(self, name: str) -> bool:
        """True if it has a parameter of that name."""
        return name in self.placed or name in self.named

    def missing(self, given: Collection[str]) -> list[str]:
        """Names that it asks for and that are not available."""
        return [name for name in self.required if name not in given]


def interface(function: Callable[..., Any]) -> Interface:
    """How a function takes its arguments; where that cannot be seen, it is given everything by name."""
    waits = _waits(function)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Interface(everything=True, waits=waits)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    own = [p for p in parameters if p.kind not in variadic]
    return Interface(
        placed=tuple(p.name for p in own if p.kind is p.POSITIONAL_ONLY),
        named=tuple(p.name for p in own if p.kind is not p.POSITIONAL_ONLY),
        required=tuple(p.name for p in own if p.default is p.empty),
        everything=any(p.kind is p.VAR_KEYWORD for p in parameters),
        waits=waits,
    )


def bound(found: Interface, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What to call a function with: by place and by name, of what is given."""
    args = []
    for name in found.placed:
        if name not in given:
            break
        args.append(given[name])
    return args, {k: v for k, v in given.items() if k not in found.placed and found.takes(k)}


def _waits(function: Any) -> bool:
    while hasattr(function, "func") and not inspect.isfunction(function):  # functools.partial
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return not isinstance(function, type) and inspect.iscoroutinefunction(type(function).__call__)
