"""What a recipe says of itself: paper, confidence, ranges of its hyperparameters."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
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
    def _hints(self) -> Mapping[str, Any]:
        try:
            return typing.get_type_hints(self.fn)
        except (NameError, TypeError):  # a user's function may name what it imports for type checkers alone
            return {}

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.fn) or inspect.getdoc(inspect.getmodule(self.fn)) or ""

    def check_types(self, hyper: Mapping[str, Any]) -> None:
        """What a user wrote is of the types that the recipe's parameters have.

        Raises:
            MethodError: names a hyperparameter that is not, and what it must be.
        """
        hints = self._hints
        for key, value in hyper.items():
            allowed, hint = self.ranges.get(key), hints.get(key, Any)
            if not isinstance(allowed, tuple) and not _fits(value, hint):
                raise MethodError(f"'{self.name}': {key} must be {_described(hint, allowed)}, got {value!r}")

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


def _fits(value: Any, hint: Any) -> bool:
    """The value is of the type that a recipe's parameter has; a whole number is a float too, a list a tuple."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) or callable(value)  # from Python, where a text names a function
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        each = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return len(each) == len(value) and all(map(_fits, value, each))
    if isinstance(origin, type):
        return isinstance(value, origin)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _described(hint: Any, allowed: object) -> str:
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", type(None): "None"}
    each = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)
    text = " or ".join(names.get(kind, str(kind).replace("typing.", "")) for kind in each)
    return f"{text} in {allowed}" if allowed is not None else text


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
    # What no float holds lies outside, whatever the range.
    if not (above and below) or (isinstance(value, int) and abs(value) >= 2**63):
        raise MethodError(f"'{method}': {key}={value!r} is out of range; it must lie in {allowed}")
