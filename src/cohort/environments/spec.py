"""From what a user writes after --environment to what makes environments.

    path.py:Class, path.py:function       a class with reset and step, or a function that gives an instance of one
    ADAPTER:ID                            an environment of another library
    ...?name=value&other=value            with keyword arguments

A class of the user's and an adapter are loaded in the processes in which environments live (`cohort.environments.worker`).
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from cohort.errors import UsageError, shown
from cohort.rewards.spec import from_file

# Name that is written before the colon -> module with a function `load(id, options) -> Maker`, imported in the worker.
ADAPTERS = {
    "gymnasium": "cohort.environments.adapters.gymnasium",
    "openenv": "cohort.environments.adapters.openenv",
    "textarena": "cohort.environments.adapters.textarena",
    "verifiers": "cohort.environments.adapters.verifiers",
}


@dataclass(frozen=True)
class Maker:
    """Makes environments of one kind, in a process where they live.

    Attributes:
        make: gives the environment of an episode; may be a coroutine function.
        components: names of the parts of the reward that its environments report (`Step.components`).
        rewards: False if its environments give no reward, so that reward functions must.
        turns: most turns of an episode, where it has a limit of its own.
        waits: True if it is known that its environments' methods are coroutines.
        rows: gives rows of its own, to train on or, told so, held out; None where it has none.
    """

    make: Callable[[], Any]
    components: tuple[str, ...] = ()
    rewards: bool = True
    turns: int | None = None
    waits: bool = False
    rows: Callable[[bool], Sequence[Mapping[str, Any]] | None] = field(default=lambda held_out: None)


@dataclass(frozen=True)
class Offer:
    """What a maker says of its environments, see `Maker`."""

    components: tuple[str, ...] = ()
    rewards: bool = True
    turns: int | None = None


@dataclass(frozen=True)
class EnvironmentSpec:
    """What was asked for as an environment.

    Attributes:
        text: as it is written on the command line; empty for what was given from Python.
        given: a class or a function from Python; None where `text` says it all.
    """

    text: str = ""
    given: Any = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"environment '{self.text}'" if self.text else f"environment {described(self.given)}"

    def load(self) -> Maker:
        """What makes the environments, in this process.

        Raises:
            UsageError: there is no such file, class or adapter, or it is no environment.
        """
        if self.given is not None:
            return of_class(self.given, self.name, {})
        name, options = parted(self.text)
        if ".py:" in name:
            return of_class(from_file(name, "environment", what="class"), self.name, options)
        adapter, _, identity = name.partition(":")
        try:
            module = importlib.import_module(ADAPTERS[adapter])
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{self.name}: {error.name} is not installed: pip install 'cohort-rl[{adapter}]'"
            ) from error
        made: Maker = module.load(identity, options)
        return made


def parse(value: Any) -> EnvironmentSpec:
    """What was asked for: a text, or a class or a function from Python.

    Raises:
        UsageError: it is none of these, or names nothing that there is.
    """
    if callable(value):
        return EnvironmentSpec(given=value)
    if not isinstance(value, str):
        raise UsageError(
            f"environment {shown(value)}: name one (path.py:Class, {', '.join(f'{name}:ID' for name in ADAPTERS)}), or give "
            "a class with reset and step, or a function that makes one"
        )
    name, _ = parted(value)
    known = ".py:" in name or (name.partition(":")[0] in ADAPTERS and name.partition(":")[2])
    if not known:
        near = get_close_matches(name.partition(":")[0], ADAPTERS, n=1)
        raise UsageError(
            f"environment '{value}': write path/to/file.py:Class, or one of {', '.join(f'{name}:ID' for name in ADAPTERS)}"
            + (f"; did you mean {near[0]}:ID?" if near else "")
        )
    return EnvironmentSpec(value)


def described(value: Any) -> str:
    """An environment as a text that is the same in every run."""
    if value is None or isinstance(value, str):
        return str(value)
    return f"<environment {getattr(value, '__name__', None) or type(value).__name__} given from Python>"


def parted(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of `NAME?option=value&...`; values that read as JSON are what they say."""
    name, _, query = text.partition("?")
    return name, {k: _value(v) for k, v in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)}


def _value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def of_class(made_by: Any, name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of a class of the user's, or of a function that gives environments.

    A class may say more of itself: by the attributes `components` and `rewards` (see Maker), and by `rows()` and
    `held_out_rows()`, static or class methods, for data of its own.

    Raises:
        UsageError: a class without reset or step.
    """
    if isinstance(made_by, type):
        lacking = [what for what in ("reset", "step") if not callable(getattr(made_by, what, None))]
        if lacking:
            wanted = {"reset": "reset(row, seed)", "step": "step(message)"}
            raise UsageError(
                f"{name}: the class {made_by.__name__} has no {' and no '.join(wanted[what] for what in lacking)}: an "
                "environment has reset(row, seed), which gives an observation, and step(message), which gives a "
                "cohort.environments.Step"
            )

    def rows(held_out: bool) -> Sequence[Mapping[str, Any]] | None:
        name = "held_out_rows" if held_out else "rows"
        own = inspect.getattr_static(made_by, name, None) if isinstance(made_by, type) else None
        # A method of instances by that name is the user's own affair.
        return getattr(made_by, name)() if isinstance(own, (staticmethod, classmethod)) else None

    components = getattr(made_by, "components", ())
    named = isinstance(components, (tuple, list)) and all(isinstance(each, str) for each in components)
    return Maker(
        make=lambda: made_by(**options),
        components=tuple(components) if named else (),
        rewards=getattr(made_by, "rewards", True) is not False,
        waits=waits(made_by),
        rows=rows,
    )


def waits(environment: Any) -> bool:
    """True if methods of an environment are coroutines."""
    return any(inspect.iscoroutinefunction(getattr(environment, what, None)) for what in ("reset", "step"))
