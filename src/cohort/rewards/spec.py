"""From what a user writes after --reward to a function."""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from cohort.data.rows import places_of
from cohort.errors import UsageError, shown
from cohort.rewards.builtin import FORMS, KINDS
from cohort.rewards.judges.judges import Judges
from cohort.rewards.kinds import Kind, Placed


@dataclass(frozen=True)
class RewardSpec:
    """One reward component.

    Attributes:
        text: how it was asked for, without the weight: a builtin's name, or `file.py:function`.
        name: under which it is logged.
        weight: in the weighted sum.
        function: a Python function given from Python; None where `text` says it all.
    """

    text: str
    name: str
    weight: float = 1.0
    function: Callable[..., Any] | None = None

    @property
    def kind(self) -> Kind | None:
        """The builtin reward that it is; None for a function of the user's."""
        return None if self.function is not None else KINDS.get(self.text.partition(":")[0])

    @property
    def argument(self) -> str:
        """What stands behind a builtin reward's name."""
        return self.text.partition(":")[2]

    @property
    def verifies(self) -> bool:
        """True if it says whether an answer is right."""
        return self.kind is not None and self.kind.verifies

    @property
    def place(self) -> str:
        """Where it is called: see `Kind.place`."""
        return "worker" if self.kind is None else self.kind.place

    def check_rows(self, rows: Sequence[Placed]) -> None:
        """It can be given for these rows.

        Args:
            rows: what messages call each, and its columns.

        Raises:
            UsageError: it cannot.
        """
        if self.kind is not None:
            self.kind.check_rows(self.name, self.argument, rows)

    def get_ready(self, judges: Judges) -> None:
        """What it asks is there.

        Raises:
            UsageError: it is not.
        """
        if self.kind is not None and self.kind.get_ready is not None:
            self.kind.get_ready(self.argument, judges)

    def inapplicable(self, rows: Sequence[Mapping[str, Any]], where: str) -> list[str]:
        """What to say, before anything is scored, of rows that it does not apply to, as those without a gold answer.

        Args:
            where: name of the data.
        """
        if self.kind is None or self.kind.inapplicable is None:
            return []
        out = []
        for found, why in self.kind.inapplicable(self.argument, rows):
            if found:
                which = f"{len(found)} of {len(rows)} rows {why} ({places_of([rows[i] for i in found])})"
                out.append(f"{where}: {which}: the reward '{self.name}' does not apply to them")
        return out

    def load(self, modules: dict[str, ModuleType] | None = None) -> Callable[..., Any]:
        """The function.

        Args:
            modules: files that were imported before, which are not imported again; takes those that are.

        Raises:
            UsageError: no such builtin, file or function, or an argument that the builtin cannot use.
        """
        if self.function is not None:
            return self.function
        made = None if self.kind is None else self.kind.make(self.argument)
        if made is not None:
            return made
        if ".py:" in self.text:
            return from_file(self.text, modules=modules)
        close = get_close_matches(self.text, FORMS, n=1)
        raise UsageError(
            f"there is no reward '{self.text}': builtin are {', '.join(FORMS)}; your own is path/to/file.py:function"
            + (f"; did you mean {close[0]}?" if close else "")
        )


Reward = str | Callable[..., Any] | tuple[float, str | Callable[..., Any]]


def parse(rewards: Sequence[Reward]) -> list[RewardSpec]:
    """Reward components from `WEIGHT*NAME=REWARD` each, with or without weight and name, Python functions, or pairs of a
    weight and one of these.

    A component goes by the name that it is given, else by its reward's; names that were not given are made unique.

    Raises:
        UsageError: no reward, a weight that is no number, or a name that is given twice.
    """
    if not rewards:
        raise UsageError(f"no reward was given; builtin are {', '.join(FORMS)}")
    specs: list[RewardSpec] = []
    read = [_read(reward) for reward in rewards]
    given = [name for name, *_ in read if name]
    for reward, (own, written, weight, function) in zip(rewards, read, strict=True):
        if not math.isfinite(weight):
            raise UsageError(f"reward {described(reward)}: its weight must be a finite number")
        if own and given.count(own) > 1:
            raise UsageError(
                f"reward {described(reward)}: another one is called '{own}', too: give each a name of its own"
            )
        for name, text in _components(own, written, function).items():
            taken = {*given, *(spec.name for spec in specs)}
            unique, count = name, 2
            while unique in taken and unique != own:
                unique, count = f"{name}_{count}", count + 1
            specs.append(RewardSpec(text, unique, weight, function))
    return specs


def _components(own: str, written: str, function: Callable[..., Any] | None) -> dict[str, str]:
    """Name -> text of the components that a reward stands for: mostly one.

    Args:
        own: the name that it was given; components that are several begin theirs with it.
    """
    if function is not None:
        return {own or getattr(function, "__name__", "reward"): written}
    before, _, argument = written.partition(":")
    if before in KINDS and (components := KINDS[before].components) is not None:
        found = components(argument)
        if own:
            found = {own if len(found) == 1 else f"{own}_{name}": each for name, each in found.items()}
        return {name: f"{before}:{each}" for name, each in found.items()}
    return {own or (written.rsplit(":", 1)[1] if ".py:" in written else before): written}


def _read(reward: Any) -> tuple[str, str, float, Callable[..., Any] | None]:
    """The name that a reward was given ("" for none), its text, weight and function."""
    if isinstance(reward, (tuple, list)):
        if not is_weighted(reward):
            raise UsageError(f"reward {described(reward)}: a pair is a weight and a reward, as in (0.5, function)")
        name, written, weight, function = _read(reward[1])
        return name, written, weight * float(reward[0]), function
    if callable(reward):
        return "", "", 1.0, reward
    if not isinstance(reward, str):
        raise UsageError(
            f"reward {described(reward)}: expected REWARD, WEIGHT*REWARD, WEIGHT*NAME=REWARD, a function, or a pair of a "
            "weight and one of these"
        )
    weighted = r"(?:(?P<weight>[-+]?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*\*)?"
    match = re.fullmatch(
        rf"\s*{weighted}\s*(?:(?P<name>[A-Za-z_][\w-]*)=)?\s*(?P<what>\S(?:.*\S)?)\s*", reward, re.DOTALL
    )
    if match is None:
        raise UsageError(
            f"reward '{reward}': write REWARD, WEIGHT*REWARD or WEIGHT*NAME=REWARD, as in 0.2*form=format:^<think>"
        )
    return match["name"] or "", match["what"], float(match["weight"] or 1.0), None


def is_weighted(value: Any) -> bool:
    """True for a pair of a weight and a reward."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and isinstance(value[0], Real)
        and not isinstance(value[0], bool)
        and (callable(value[1]) or isinstance(value[1], str))
    )


def described(reward: Any) -> str:
    """A reward as a text that is the same in every run."""
    if is_weighted(reward):
        return f"{reward[0]:g}*{described(reward[1])}"
    if isinstance(reward, str):
        return reward
    if not callable(reward):
        return shown(reward)
    return f"<Python function {getattr(reward, '__name__', None) or type(reward).__name__}>"


def from_file(
    text: str, kind: str = "reward", *, modules: dict[str, ModuleType] | None = None, what: str = "function"
) -> Callable[..., Any]:
    """The function that `path.py:function` names; `kind` is what it is, for messages.

    Args:
        what: "function", or "class".
        modules: files that were imported before, which are not imported again; takes those that are.

    Raises:
        UsageError: no such file or function, or the file cannot be imported.
    """
    file, name = text.rsplit(":", 1)
    try:
        path = Path(file).expanduser().resolve()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, an unknown ~user
        raise UsageError(f"{kind} {shown(text)}: there is no file {shown(file)}: {error}") from error
    if not there:
        raise UsageError(f"{kind} '{text}': there is no file {file}")
    modules = {} if modules is None else modules
    module = modules.get(str(path))
    if module is None:
        module = modules[str(path)] = _imported(path, text, file, kind)
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        wanted = inspect.isclass if what == "class" else inspect.isfunction
        known = [k for k, v in vars(module).items() if wanted(v) and v.__module__ == module.__name__]
        raise UsageError(f"{kind} '{text}': {file} has no {what} '{name}' (it has: {', '.join(known) or 'none'})")
    return function


def module_of(path: Path, name: str) -> ModuleType:
    """A file of the user's, imported under a name; it may import its neighbours, as a script may."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def _imported(path: Path, text: str, file: str, kind: str) -> ModuleType:
    try:
        return module_of(path, f"cohort_{kind}_{path.stem}")
    except (Exception, SystemExit) as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), 0
        )
        where = f" (line {line})" if line else ""
        raise UsageError(
            f"{kind} '{text}': {file} cannot be imported: {type(error).__name__}: {error}{where}"
        ) from error
