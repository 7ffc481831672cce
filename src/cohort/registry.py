"""From a name to a method: the files in `recipes/`, a user's own file, and the expressions of the command line.

An expression is methods joined by `+`; each may have hyperparameters in parentheses and a selection of axes:

    dapo+gdpo                          two methods
    ngrpo(clip_high=0.3)               other hyperparameters
    dapo+gdpo:advantage                only the advantage of gdpo
    dapo:-filter                       dapo without its filter
    my_method.py:name                  the function `name` of a file
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import cohort.recipes
from cohort.errors import shown
from cohort.methods import Method, MethodError
from cohort.recipes.recipe import Recipe, recipe_of


def slug(module: str) -> str:
    """`mc_grpo` -> `mc-grpo`."""
    return module.replace("_", "-")


@cache
def names() -> tuple[str, ...]:
    """All methods that cohort brings, by name."""
    found = (info.name for info in pkgutil.iter_modules(cohort.recipes.__path__))
    return tuple(sorted(slug(name) for name in found if name != "recipe"))


def near(name: str, known: tuple[str, ...]) -> str:
    """A hint with the names that look like a mistyped one."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(c) for c in close)}?" if close else f"known: {', '.join(known)}"


@cache
def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cohort_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise MethodError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def recipe(name: str) -> Recipe:
    """The recipe of a method by name, or of a user's own file by `path.py:function`.

    Raises:
        MethodError: no such method (with near names), file or function.
    """
    if ".py:" in name:
        file, function = name.rsplit(":", 1)
        try:
            path = Path(file).expanduser().resolve()
            there = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, an unknown ~user
            raise MethodError(f"there is no file {shown(file)}: {error}") from error
        if not there:
            raise MethodError(f"there is no file {file} (asked for by '{name}')")
        found = getattr(_load_file(path), function, None)
        if not callable(found):
            raise MethodError(f"{file} has no function '{function}'; it must return a cohort.Method")
        return recipe_of(found, name=function)
    if name.endswith(".py"):
        raise MethodError(f"'{name}' names a file; say which of its functions makes the method, as '{name}:function'")
    if name not in names():
        raise MethodError(f"there is no method {shown(name)}; {near(name, names())} ('cohort methods' lists them)")
    module = importlib.import_module(f"cohort.recipes.{name.replace('-', '_')}")
    return recipe_of(getattr(module, name.replace("-", "_")), name=name)


def method(expression: str | Method | Callable[..., Method], **hyper: Any) -> Method:
    """The method that an expression asks for, hyperparameters set.

    Args:
        expression: see the module; a Method comes back as it is, a recipe function is called.
        hyper: hyperparameters, where the expression is a single name.

    Raises:
        MethodError: unknown method, axis or hyperparameter, or a hyperparameter out of its range.
        ConflictError: two methods fill one axis.
    """
    if isinstance(expression, Method):
        return expression
    if not isinstance(expression, str):
        return recipe_of(expression)(**hyper)
    found = parts(expression)
    if hyper and len(found) != 1:
        raise MethodError("hyperparameters as keywords go with a single name; write them into the expression")
    return reduce(lambda a, b: a | b, [part.make(hyper) for part in found])


def parts(expression: str) -> list[Part]:
    """The methods that an expression joins."""
    return [Part.parse(text) for text in _split(expression)]


def _split(expression: str) -> list[str]:
    found, depth, start = [], 0, 0
    for i, char in enumerate(expression):
        depth += (char in "([") - (char in ")]")
        if char == "+" and depth == 0:
            found.append(expression[start:i])
            start = i + 1
    found = [part.strip() for part in [*found, expression[start:]]]
    if depth != 0 or not all(found):
        raise MethodError(f"{shown(expression)} is no method expression: write names joined by +, as in 'dapo+gdpo'")
    return found


def _hyper(arguments: str, text: str) -> dict[str, Any]:
    """Hyperparameters as they stand in parentheses."""
    named: dict[str, Any] = {}
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError("write one pair of parentheses")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("hyperparameters are given by name, as in clip_high=0.3")
        for keyword in call.keywords:
            if keyword.arg in named:
                raise ValueError(f"{keyword.arg} is given twice")
            named[str(keyword.arg)] = _literal(keyword.value)
    except SyntaxError as error:
        raise MethodError(f"cannot read the hyperparameters of {shown(text)}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        why = "they are nested too deeply" if not isinstance(error, ValueError) else error
        raise MethodError(f"cannot read the hyperparameters of {shown(text)}: {why}") from error
    return named


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"{ast.unparse(node)[:200]} is no number, text, list or mapping") from error


@dataclass(frozen=True)
class Part:
    """One method of an expression: its name, hyperparameters, and the axes that are picked or (with -) left out."""

    name: str
    hyper: dict[str, Any] = field(default_factory=dict)
    axes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Part:
        match = re.fullmatch(
            r"(?P<name>(?:[^():]*\.py:)?[^():]+)(?P<args>\(.*\))?(?::(?P<axes>[a-z,\- ]+))?", text, re.DOTALL
        )
        if match is None:
            raise MethodError(f"{shown(text)} is no method: write name, name(hyperparameter=value) or name:axis")
        hyper: dict[str, Any] = {}
        if match["args"]:
            hyper = _hyper(match["args"], text)
        axes = tuple(axis.strip() for axis in match["axes"].split(",")) if match["axes"] else ()
        return cls(match["name"].strip(), hyper, axes)

    def make(self, hyper: dict[str, Any]) -> Method:
        found, given = recipe(self.name), {**self.hyper, **hyper}
        try:
            made = found(**given)
            found.check_types(given)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            if isinstance(error, MethodError) or not given:
                raise
            found.check_types(given)
            said = ", ".join(f"{key}={value!r}" for key, value in given.items())
            raise MethodError(f"'{self.name}' cannot be made with {said[:200]}: {error}") from error
        out = tuple(axis.removeprefix("-") for axis in self.axes if axis.startswith("-"))
        kept = tuple(axis for axis in self.axes if not axis.startswith("-"))
        if out and kept:
            raise MethodError(
                f"'{self.name}:{','.join(self.axes)}' both picks axes and leaves some out; do one of them"
            )
        if out:
            return made.without(out)
        return made.only(kept) if kept else made


def signature(name: str) -> dict[str, inspect.Parameter]:
    """Hyperparameters of a method: name -> parameter with its default."""
    return dict(recipe(name).parameters)


def rewards(expression: str) -> tuple[str, ...]:
    """The rewards that the papers of an expression's methods give, each once; of whole methods only, not of picked axes.

    Raises:
        MethodError: unknown method.
    """
    whole = [part.name for part in parts(expression) if all(axis.startswith("-") for axis in part.axes)]
    return tuple(dict.fromkeys(reward for name in whole for reward in recipe(name).rewards))
