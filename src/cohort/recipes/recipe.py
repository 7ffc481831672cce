"""What a recipe says of itself: paper, confidence, and what its hyperparameters may be."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from cohort.methods import Method, MethodError
from cohort.methods.ranges import Range, check, described, fits, range_of


@dataclass(frozen=True)
class Recipe:
    """A function that makes a Method, with what is known of it.

    Attributes:
        fn: the function; its keyword arguments are the method's hyperparameters. `Annotated[float, "[0, 1)"]` gives the
            interval that one lies in, `Annotated[str, ("a", "b")]` the values that are allowed.
        name: name on the command line.
        title: of the paper.
        paper: arXiv id, or another source.
        idea: one line.
        confidence: "exact", or "reconstructed: which part".
        rewards: those of the paper, as they are written behind --reward; a run that names none has them.
    """

    fn: Callable[..., Method]
    name: str
    title: str = ""
    paper: str = ""
    idea: str = ""
    confidence: str = ""
    rewards: tuple[str, ...] = ()

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.fn).parameters

    @cached_property
    def hints(self) -> Mapping[str, Any]:
        """Hyperparameter -> type; without those that name what is imported for type checkers alone."""
        scope = getattr(inspect.unwrap(self.fn), "__globals__", {})
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if parameter.annotation is not parameter.empty:
                alone = SimpleNamespace(__annotations__={name: parameter.annotation})
                with contextlib.suppress(NameError, AttributeError, TypeError, SyntaxError):
                    found |= typing.get_type_hints(alone, scope, include_extras=True)
        return found

    @cached_property
    def ranges(self) -> Mapping[str, Range]:
        """Hyperparameter -> interval such as "[0, 1)" or "(0, inf)", or the values allowed."""
        return {name: allowed for name, hint in self.hints.items() if (allowed := range_of(hint)) is not None}

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.fn) or inspect.getdoc(inspect.getmodule(self.fn)) or ""

    def check_types(self, hyper: Mapping[str, Any]) -> None:
        """What a user wrote is of the types that the recipe's parameters have.

        Raises:
            MethodError: names a hyperparameter that is not, and what it must be.
        """
        for key, value in hyper.items():
            hint = self.hints.get(key, Any)
            if not isinstance(self.ranges.get(key), tuple) and not fits(value, hint):
                raise MethodError(f"'{self.name}': {key} must be {described(hint)}, got {value!r}")

    def __call__(self, **hyper: Any) -> Method:
        """The method with its hyperparameters.

        Raises:
            MethodError: unknown hyperparameter, or a value out of range.
        """
        for key, value in hyper.items():
            if key not in self.parameters:
                raise MethodError(
                    f"'{self.name}' has no hyperparameter '{key}' (it has: {', '.join(self.parameters) or 'none'})"
                )
            if key in self.ranges:
                check(self.name, key, value, self.ranges[key])
        made = self.fn(**hyper)
        if not isinstance(made, Method):
            raise MethodError(f"'{self.name}' must return a cohort.Method, but returned {type(made).__name__}")
        arguments = ", ".join(f"{k}={v!r}" for k, v in hyper.items())
        return made.named(f"{self.name}({arguments})" if arguments else self.name)


def recipe(
    *, title: str = "", paper: str = "", idea: str = "", confidence: str = "", rewards: tuple[str, ...] = ()
) -> Callable[[Callable[..., Method]], Recipe]:
    """Say what a recipe function implements; the result is called like the function."""

    def decorate(fn: Callable[..., Method]) -> Recipe:
        return Recipe(fn, fn.__name__.replace("_", "-"), title, paper, idea, confidence, rewards)

    return decorate


def recipe_of(found: Recipe | Callable[..., Method], name: str = "") -> Recipe:
    """A recipe, also from a plain function that returns a Method."""
    if isinstance(found, Recipe):
        return found
    title = (inspect.getdoc(found) or "").split("\n")[0]
    return Recipe(found, name or found.__name__, title=title, paper="own", confidence="own")
