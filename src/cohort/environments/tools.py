"""Functions that the policy calls: tools, and classes of TRL's `environment_factory` whose public methods are tools.

A turn with calls is answered with their results, a turn without ends the episode. What a tool raises is its result, as
`{'error': '...'}`, and so is what is wrong with a call that cannot be read: the policy is told, and the episode goes on.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

from cohort.environments.base import Observation, Step
from cohort.errors import UsageError, shown
from cohort.rewards.interface import bound, interface
from cohort.rewards.spec import from_file

# Methods of a class that are no tools.
RESET, REWARD = "reset", "get_reward"
# Name of a call that has none.
UNKNOWN = "unknown"
# Column of a row that names one of several environments.
COLUMN = "environment"
# Files that were imported here: what stands in one file shares its state.
MODULES: dict[str, ModuleType] = {}

Message = dict[str, Any]


class ToolEnvironment:
    """The environment of an episode with tools.

    Args:
        functions: that can be called; plain ones or coroutine functions.
        own: an instance of a class of `environment_factory`: its methods are tools, too. Its `reset(**row)` may return a text,
            which is put behind the prompt; its `get_reward()`, where it has one, is the episode's reward.
        rounds: most turns whose calls are answered (`max_tool_calling_iterations`); the next turn that calls ends the episode.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], own: Any = None, *, rounds: int | None = None) -> None:
        self.functions: dict[str, Callable[..., Any]] = {}
        for each in [*functions, *([] if own is None else methods(own))]:
            if (name := name_of(each)) in self.functions:
                raise UsageError(f"there are two tools of the name {name}: rename one of them")
            self.functions[name] = each
        self.own, self.rounds, self.answered = own, rounds, 0

    def reset(self, row: Mapping[str, Any], seed: int) -> Any:
        """The prompt, and what the class's own `reset` adds to it. It is given the row's columns, and where it names it, the
        seed."""
        if self.own is None:
            return Observation("", behind=True)
        reset = self.own.reset
        found = interface(reset)
        own_seed = {"seed": seed} if found.names("seed") else {}
        args, named = bound(found, {**own_seed, **row})
        return then(reset(*args, **named), self._shown)

    def step(self, message: Message) -> Any:
        """The results of the message's calls; the end of the episode where it calls nothing."""
        calls, errors = message.get("tool_calls") or [], message.get("call_errors") or []
        if not calls and not errors:
            return self.finish()
        if self.rounds is not None and self.answered >= self.rounds:
            return self.finish("turns")
        self.answered += 1
        told = [_result({}, {"error": error}, failed=True) for error in errors]
        found = [self._call(call) for call in calls]
        if any(map(inspect.isawaitable, found)):
            return self._together(found, told)
        return Step(Observation([*found, *told]), self._reward)

    def close(self) -> None:
        """Does nothing: classes of `environment_factory` know no closing."""

    def finish(self, end: Literal["done", "turns"] = "done") -> Any:
        """The last step of an episode, with its reward; asked for also where a limit of the run's ended it."""
        get_reward = getattr(self.own, REWARD, None)
        if get_reward is None:
            return Step(None, None, done=True, end=end)
        name = type(self.own).__name__
        return then(get_reward(), lambda value: Step(None, value, {name: value}, done=True, end=end))

    def offer(self) -> dict[str, Any]:
        """What there is to know of such environments; see `cohort.environments.spec.Offer`.

        Raises:
            UsageError: see `schemas`.
        """
        rewards = self._reward is not None
        return {
            "components": [type(self.own).__name__] if rewards else [],
            "rewards": rewards,
            "finishes": rewards,
            "tools": {"": schemas([*self.functions.values()])},
        }

    @property
    def _reward(self) -> float | None:
        """Of a turn that does not end the episode."""
        return None if getattr(self.own, REWARD, None) is None else 0.0

    def _shown(self, said: Any) -> Observation:
        if said is None:
            return Observation("", behind=True)
        if isinstance(said, list):
            said = _text(said)
        if not isinstance(said, str):
            raise TypeError(
                f"reset returns a text to put behind the prompt, or None, not {type(said).__name__} ({shown(said, 80)})"
            )
        return Observation(said, behind=True)

    def _call(self, call: Message) -> Any:
        """The result of a call as a message, or something that gives it when it is awaited."""
        function = call["function"]
        name, given = function["name"], function["arguments"]
        try:
            if name not in self.functions:
                raise ValueError(f"Tool {name} not found.")
            value = self.functions[name](**given)
            if inspect.isawaitable(value):
                return _awaited(call, value)
            return _result(call, value)
        except (Exception, SystemExit) as error:
            return _result(call, {"error": str(error)}, failed=True)

    async def _together(self, found: list[Any], told: list[Message]) -> Step:
        """Results of which some have to be awaited: side by side."""
        places = [i for i, each in enumerate(found) if inspect.isawaitable(each)]
        for i, message in zip(places, await asyncio.gather(*(found[i] for i in places)), strict=True):
            found[i] = message
        return Step(Observation([*found, *told]), self._reward)


class Several:
    """The environment of an episode, one of several that the row names.

    Args:
        makers: name -> what makes one.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self.makers = makers
        self.own: Any = None

    def reset(self, row: Mapping[str, Any], seed: int) -> Any:
        """Make the one that the row's column `environment` names, and begin its episode; it is given the other columns.

        Raises:
            ValueError: there is none of that name.
        """
        name = str(row.get(COLUMN))
        if name not in self.makers:
            raise ValueError(f"the row's column '{COLUMN}' holds {shown(name)}: there are {', '.join(self.makers)}")
        rest = {key: value for key, value in row.items() if key != COLUMN}

        def begin(own: Any) -> Any:
            self.own = own
            return own.reset(rest, seed)

        return then(self.makers[name](), begin)

    def step(self, message: Message) -> Any:
        """See Environment."""
        return self.own.step(message)

    def finish(self) -> Any:
        """See ToolEnvironment; others are worth no more."""
        return self.own.finish() if isinstance(self.own, ToolEnvironment) else Step(None, None, done=True)

    def close(self) -> Any:
        """See Environment."""
        close = getattr(self.own, "close", None)
        return close() if callable(close) else None


def answers_calls(kind: Any) -> bool:
    """True for a class, or an instance, whose public methods are tools: with a reset and no `step(message)` beside it."""
    reset, step = getattr(kind, RESET, None), getattr(kind, "step", None)
    if not callable(reset) or isinstance(kind, (ToolEnvironment, Several)):
        return False
    if not callable(step):
        return True
    # A step beside reset(**row) is a tool of that name.
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(reset).parameters.values())


def lent_by(environment: Any) -> Any:
    """What reward functions are given of an environment: the user's own object."""
    while isinstance(environment, (ToolEnvironment, Several)):
        environment = environment.own
    return environment


def names(kind: type) -> list[str]:
    """The methods of a class that are tools: the public ones, but for `reset` and `get_reward`."""
    found = [name for name, _ in inspect.getmembers(kind, inspect.isfunction)]
    return [name for name in found if not name.startswith("_") and name not in (RESET, REWARD)]


def methods(own: Any) -> list[Callable[..., Any]]:
    """The tools of an instance."""
    return [getattr(own, name) for name in names(type(own))]


def functions_of(tools: Sequence[Any]) -> list[Callable[..., Any]]:
    """Functions, and those that texts name, as in `path.py:f,g`.

    Raises:
        UsageError: there is no such file or function.
    """
    out: list[Callable[..., Any]] = []
    for tool in tools:
        if not isinstance(tool, str):
            out.append(tool)
            continue
        file, _, listed = tool.rpartition(":")
        if not file.endswith(".py") or not listed.strip():
            raise UsageError(
                f"tools {shown(tool)}: write path/to/file.py:function, or several of a file as file.py:f,g"
            )
        out += [from_file(f"{file}:{each.strip()}", "tool", modules=MODULES) for each in listed.split(",")]
    return out


def name_of(function: Callable[..., Any]) -> str:
    """The name by which a function is called.

    Raises:
        UsageError: it has none.
    """
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise UsageError(f"tool {shown(function)}: it has no name: give a function")
    return name


def schemas(functions: Sequence[Callable[..., Any]]) -> list[dict[str, Any]]:
    """Schemas of functions, made from their type hints and docstrings by transformers.

    Raises:
        UsageError: two have one name, or one lacks what its schema is made of.
    """
    from transformers.utils.chat_template_utils import get_json_schema

    out: list[dict[str, Any]] = []
    for function in functions:
        name = name_of(function)
        try:
            out.append(get_json_schema(function))
        except Exception as error:
            raise UsageError(
                f"tool {name}: its schema cannot be made ({shown(str(error), 300)[1:-1]}): a tool has a docstring, a type hint "
                "for every argument, and a section 'Args:' in the docstring with a line for each (a method that is no tool "
                "begins with an underscore)"
            ) from error
    return out


async def _awaited(call: Message, value: Any) -> Message:
    try:
        return _result(call, await value)
    except (Exception, SystemExit) as error:
        return _result(call, {"error": str(error)}, failed=True)


def _result(call: Message, value: Any, *, failed: bool = False) -> Message:
    """The message that tells a result."""
    parts = isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value)
    content = _text(value) if parts else str(value)
    name = call.get("function", {}).get("name", UNKNOWN)
    out: Message = {"role": "tool", "name": name, "content": content}
    if "id" in call:
        out["tool_call_id"] = call["id"]
    return {**out, "failed": True} if failed else out


def _text(parts: Sequence[Any]) -> str:
    """Parts of content as one text.

    Raises:
        TypeError: there is more than text.
    """
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("only text can be shown to the policy, and this holds something else")
    return "".join(texts)  # type: ignore[arg-type]


def then(value: Any, make: Callable[[Any], Any]) -> Any:
    """What is made of a value, now or when it is there."""

    async def later(coming: Awaitable[Any]) -> Any:
        made = make(await coming)
        return await made if inspect.isawaitable(made) else made

    return later(value) if inspect.isawaitable(value) else make(value)
