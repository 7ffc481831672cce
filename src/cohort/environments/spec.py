"""From what a user writes after --environment to what makes environments.

    path.py:Class, path.py:function       a class, or a function that gives an instance of one: with reset(row, seed) and
                                          step(message), or with tools for methods (`cohort.environments.tools`)
    name=...,other=...                    several: a row's column `environment` names its own
    ADAPTER:ID                            an environment of another library
    ...?name=value&other=value            with keyword arguments

A class of the user's and an adapter are loaded in the processes in which environments live (`cohort.environments.worker`).
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

from cohort.environments import tools
from cohort.errors import UsageError, shown
from cohort.rewards.spec import from_file

# Name that is written before the colon -> module with a function `load(id, options) -> Maker`, imported in the worker.
ADAPTERS = {
    "gymnasium": "cohort.environments.adapters.gymnasium",
    "openenv": "cohort.environments.adapters.openenv",
    "reasoning_gym": "cohort.environments.adapters.reasoning_gym",
    "textarena": "cohort.environments.adapters.textarena",
    "textworld": "cohort.environments.adapters.textworld",
    "verifiers": "cohort.environments.adapters.verifiers",
}


# One of several, and where the next begins.
_SEVERAL = re.compile(r"(?P<name>[\w-]+)=(?P<spec>.*)", re.DOTALL)
_NEXT = re.compile(r",(?=[\w-]+=[^=,?]*:)")


@dataclass(frozen=True)
class Maker:
    """Makes environments of one kind, in a process where they live.

    Attributes:
        make: gives the environment of an episode; may be a coroutine function.
        components: names of the parts of the reward that its environments report (`Step.components`).
        rewards: False if its environments give no reward, so that reward functions must.
        turns: most turns of an episode, where it has a limit of its own.
        several: name -> maker, where a row names its own.
        waits: True if it is known that its environments' methods are coroutines.
        rows: gives rows of its own, to train on or, told so, held out; None where it has none.
    """

    make: Callable[[], Any]
    components: tuple[str, ...] = ()
    rewards: bool = True
    turns: int | None = None
    several: Mapping[str, Maker] = field(default_factory=dict)
    waits: bool = False
    rows: Callable[[bool], Sequence[Mapping[str, Any]] | None] = field(default=lambda held_out: None)


@dataclass(frozen=True)
class Offer:
    """What there is to know of environments.

    Attributes:
        components, rewards, turns: see `Maker`.
        finishes: see `cohort.environments.EnvironmentFactory`.
        tools: name of the environment -> schemas of what the policy may call; the name is empty where there is one.
    """

    components: tuple[str, ...] = ()
    rewards: bool = True
    turns: int | None = None
    finishes: bool = False
    tools: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentSpec:
    """What was asked for as an environment.

    Attributes:
        text: as it is written on the command line; empty for what was given from Python.
        given: a class or a function from Python; None where `text` says it all.
        several: name -> one of several, from which each row names its own.
        tools: functions that the policy may call, or texts that name some.
        rounds: most turns whose calls are answered; None sets no limit.
    """

    text: str = ""
    given: Any = None
    several: Mapping[str, EnvironmentSpec] = field(default_factory=dict)
    tools: tuple[Any, ...] = ()
    rounds: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.several:
            return f"environments {', '.join(self.several)}"
        if self.text:
            return f"environment '{self.text}'"
        if self.given is not None:
            return f"environment {described(self.given)}"
        return f"tools {', '.join(str(getattr(tool, '__name__', tool)) for tool in self.tools)}"

    def load(self) -> Maker:
        """What makes the environments, in this process.

        Raises:
            UsageError: there is no such file, class or adapter, or it is no environment.
        """
        if self.several:
            makers = {name: each.load() for name, each in self.several.items()}
            return Maker(lambda: tools.Several({name: each.make for name, each in makers.items()}), several=makers)
        functions = tools.functions_of(self.tools)
        if self.given is None and not self.text:
            return Maker(lambda: tools.ToolEnvironment(functions, rounds=self.rounds), rewards=False)
        if self.given is not None:
            return of_class(self.given, self.name, {}, functions, self.rounds)
        name, options = parted(self.text)
        if ".py:" in name:
            found = from_file(name, "environment", what="class", modules=tools.MODULES)
            return of_class(found, self.name, options, functions, self.rounds)
        if functions:
            raise UsageError(
                f"{self.name} takes no tools: they go with a class whose methods are tools, or stand alone"
            )
        adapter, _, identity = name.partition(":")
        try:
            module = importlib.import_module(ADAPTERS[adapter])
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{self.name}: {error.name} is not installed: pip install 'cohort-rl[{adapter}]'"
            ) from error
        made: Maker = module.load(identity, options)
        return made


def parse(value: Any, tools: Sequence[Any] = (), rounds: int | None = None) -> EnvironmentSpec:
    """What was asked for: a text, or a class or a function from Python, or a mapping of names to these; None for tools alone.

    Args:
        tools, rounds: see EnvironmentSpec.

    Raises:
        UsageError: it is none of these, or names nothing that there is.
    """
    if isinstance(value, str) and _SEVERAL.match(value):
        value = {name: spec for name, _, spec in (each.partition("=") for each in _NEXT.split(value))}
    if isinstance(value, Mapping):
        return EnvironmentSpec(several={str(name): parse(each, tools, rounds) for name, each in value.items()})
    if callable(value) or (value is None and tools):
        return EnvironmentSpec(given=value, tools=tuple(tools), rounds=rounds)
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
    return EnvironmentSpec(value, tools=tuple(tools), rounds=rounds)


def described(value: Any) -> str:
    """An environment as a text that is the same in every run."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={described(each)}" for name, each in value.items())
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


def of_class(
    made_by: Any,
    name: str,
    options: Mapping[str, Any],
    functions: Sequence[Callable[..., Any]] = (),
    rounds: int | None = None,
) -> Maker:
    """The maker of a class of the user's, or of a function that gives environments.

    A class may say more of itself: by the attributes `components` and `rewards` (see Maker), and by `rows()` and
    `held_out_rows()`, static or class methods, for data of its own.

    Args:
        functions, rounds: see `cohort.environments.tools.ToolEnvironment`, which a class is put into that has no step of its
            own.

    Raises:
        UsageError: a class without reset, or with nothing that answers; or functions that it has no use for.
    """
    if isinstance(made_by, type):
        if not callable(getattr(made_by, "reset", None)):
            raise UsageError(
                f"{name}: the class {made_by.__name__} has no reset: an environment has reset(row, seed), which gives an "
                "observation, and step(message), which gives a cohort.environments.Step; or reset(**row), and methods that the "
                "policy may call"
            )
        if tools.answers_calls(made_by) and not tools.names(made_by) and not functions:
            raise UsageError(
                f"{name}: the class {made_by.__name__} has no step(message), and no methods that the policy could call as tools"
            )

    def environment(made: Any) -> Any:
        if tools.answers_calls(made):
            return tools.ToolEnvironment(functions, made, rounds=rounds)
        if functions:
            raise UsageError(
                f"{name} has a step of its own, and takes no tools: leave tools out, or name another environment"
            )
        return made

    def rows(held_out: bool) -> Sequence[Mapping[str, Any]] | None:
        name = "held_out_rows" if held_out else "rows"
        own = inspect.getattr_static(made_by, name, None) if isinstance(made_by, type) else None
        # A method of instances by that name is the user's own affair.
        return getattr(made_by, name)() if isinstance(own, (staticmethod, classmethod)) else None

    components = getattr(made_by, "components", ())
    named = isinstance(components, (tuple, list)) and all(isinstance(each, str) for each in components)
    return Maker(
        make=lambda: tools.then(made_by(**options), environment),
        components=tuple(components) if named else (),
        rewards=getattr(made_by, "rewards", True) is not False,
        waits=waits(made_by) and not tools.answers_calls(made_by),
        rows=rows,
    )


def waits(environment: Any) -> bool:
    """True if methods of an environment are coroutines."""
    return any(inspect.iscoroutinefunction(getattr(environment, what, None)) for what in ("reset", "step"))
