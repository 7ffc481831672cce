"""What a diagnosis is, what it sees and says, and where all of them are found."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

Severity = Literal["alarm", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("alarm", "warning", "note")


class Missing(Exception):
    """A diagnosis cannot be made; the message says what it lacks."""


@dataclass(frozen=True)
class Evidence:
    """What shows it.

    Attributes:
        text: a sentence with the numbers.
        steps: of the run, where it is seen.
        numbers: the numbers by name, for programs.
        where: in the viewer: a URL fragment such as `#/run/NAME/metric/entropy`; empty if it has no place there.
    """

    text: str
    steps: tuple[int, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Try:
    """Something to do about it: what, the methods of this library that do it, and the configuration keys to change."""

    text: str
    methods: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [", ".join(f"`{name}`" for name in names) for names in (self.methods, self.settings) if names]
        return f"{self.text} ({'; '.join(parts)})" if parts else self.text


@dataclass(frozen=True)
class Seen:
    """What a diagnosis saw: how bad it is, one sentence on what, and its evidence."""

    severity: Severity
    what: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Finding:
    """A diagnosis that was made.

    Attributes:
        severity: "alarm" (the run fails, or its numbers cannot be trusted), "warning" (it loses much, or soon will) or
            "note" (worth knowing).
        name: of the diagnosis.
        what: one sentence.
        evidence: steps and numbers.
        meaning: what it means.
        tries: what can be tried.
        source: the paper, or "measured here".
    """

    severity: Severity
    name: str
    what: str
    evidence: tuple[Evidence, ...]
    meaning: str
    tries: tuple[Try, ...]
    source: str


@dataclass(frozen=True)
class Diagnosis:
    """A pure function from what was recorded to what it saw, or None where there is nothing to see.

    Attributes:
        name: as in `zero-signal`.
        summary: the first sentence of its docstring; threshold, meaning and source: its paragraphs of these names.
        tries: what can be done about it.
        columns: of the rollouts that it reads, where they are stored.
        cause: true if it names what others are the symptoms of; causes are told first.
    """

    function: Callable[[Any], Seen | None]
    name: str
    summary: str
    threshold: str
    meaning: str
    source: str
    tries: tuple[Try, ...]
    columns: tuple[str, ...] = ()
    cause: bool = False

    def __call__(self, record: Any) -> Finding | None:
        """The finding, if there is one.

        Raises:
            Missing: it cannot be made.
        """
        seen = self.function(record)
        if seen is None:
            return None
        return Finding(seen.severity, self.name, seen.what, seen.evidence, self.meaning, self.tries, self.source)


def diagnosis(
    *tries: Try, columns: tuple[str, ...] = (), cause: bool = False
) -> Callable[[Callable[[Any], Seen | None]], Diagnosis]:
    """Make a diagnosis of a function whose docstring has a first sentence and the paragraphs Threshold, Meaning, Source."""

    def decorate(function: Callable[[Any], Seen | None]) -> Diagnosis:
        summary, parts = _sections(inspect.getdoc(function) or "", function.__name__)
        return Diagnosis(
            function,
            function.__name__.replace("_", "-"),
            summary,
            parts["Threshold"],
            parts["Meaning"],
            parts["Source"],
            tries,
            columns,
            cause,
        )

    return decorate


def _sections(doc: str, name: str) -> tuple[str, dict[str, str]]:
    first, *rest = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n|\n(?=[A-Z][a-z]+: )", doc.strip()))
    parts = {text.split(":", 1)[0]: text.split(":", 1)[1].strip() for text in rest if ":" in text}
    for wanted in ("Threshold", "Meaning", "Source"):
        if wanted not in parts:
            raise TypeError(f"the docstring of the diagnosis {name} has no paragraph '{wanted}: ...'")
    return first, parts


@cache
def diagnoses(kind: Literal["run", "data"] = "run") -> tuple[Diagnosis, ...]:
    """All diagnoses of runs, or of data: a module each in the folder of that name, its function named as the module."""
    folder = importlib.import_module(f"cohort.doctor.{kind}")
    names = sorted(info.name for info in pkgutil.iter_modules(folder.__path__))
    return tuple(getattr(importlib.import_module(f"{folder.__name__}.{name}"), name) for name in names)
