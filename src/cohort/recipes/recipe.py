"""What a recipe says of itself: paper, confidence, ranges of its hyperparameters."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cohort.methods import Method, MethodError

_INTERVAL = re.compile(r"(?P<open>[\[(])\s*(?P<low>-?[\w.]+)\s*,\s*(?P<high>-?[\w.]+)\s*(?P<close>[\])])")


@dataclass(frozen=True)
class Recipe:
    """A function that makes a Method, with what is known of it.

    Attributes:
        fn: the function; its keyword arguments are the method's hyperparameters.
        name: name on the command line.
        title: of the paper.
        paper: arXiv id, or another source.
        idea: one line.
        confidence: "exact", or "reconstructed: which part".
        ranges: hyperparameter -> interval such as "[0, 1)" or "(0, inf)", or the values allowed.
    """

    fn: Callable[..., Method]
    name: str
    title: str = ""
    paper: str = ""
    idea: str = ""
    confidence: str = ""
    ranges: Mapping[str, str | tuple[Any, ...]] = field(default_factory=dict)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.fn).parameters

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.fn) or inspect.getdoc(inspect.getmodule(self.fn)) or ""

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
                _check(self.name, key, value, self.ranges[key])
        made = self.fn(**hyper)
        if not isinstance(made, Method):
            raise MethodError(f"'{self.name}' must return a cohort.Method, but returned {type(made).__name__}")
        arguments = ", ".join(f"{k}={v!r}" for k, v in hyper.items())
        return made.named(f"{self.name}({arguments})" if arguments else self.name)


def recipe(
    *,
    title: str = "",
    paper: str = "",
    idea: str = "",
    confidence: str = "",
    ranges: Mapping[str, str | tuple[Any, ...]] | None = None,
) -> Callable[[Callable[..., Method]], Recipe]:
    """Say what a recipe function implements; the result is called like the function."""

    def decorate(fn: Callable[..., Method]) -> Recipe:
        return Recipe(fn, fn.__name__.replace("_", "-"), title, paper, idea, confidence, dict(ranges or {}))

    return decorate


def recipe_of(found: Recipe | Callable[..., Method], name: str = "") -> Recipe:
    """A recipe, also from a plain function that returns a Method."""
    if isinstance(found, Recipe):
        return found
    title = (inspect.getdoc(found) or "").split("\n")[0]
    return Recipe(found, name or found.__name__, title=title, paper="own", confidence="own")


def _check(method: str, key: str, value: Any, allowed: str | tuple[Any, ...]) -> None:
    if isinstance(allowed, tuple):
        if value not in allowed:
            raise MethodError(f"'{method}': {key}={value!r} is not one of {', '.join(repr(a) for a in allowed)}")
        return
    match = _INTERVAL.fullmatch(allowed)
    assert match is not None, f"malformed range {allowed!r} of {method}.{key}"
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise MethodError(f"'{method}': {key} must be a number in {allowed}, got {value!r}")
    low, high = float(match["low"]), float(match["high"])
    above = value >= low if match["open"] == "[" else value > low
    below = value <= high if match["close"] == "]" else value < high
    if math.isnan(value) or not (above and below):
        raise MethodError(f"'{method}': {key}={value!r} is out of range; it must lie in {allowed}")
