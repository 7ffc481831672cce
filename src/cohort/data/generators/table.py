"""All generators by name, and what they make in order."""

from __future__ import annotations

import inspect
import json
import random
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cohort.data.generators import langtons_ant, life, puzzles, sokoban
from cohort.data.generators.spatial import make as spatial
from cohort.data.generators.task import Task
from cohort.errors import UsageError

# Draws in a row that give nothing new, after which there is taken to be nothing new.
_TRIES = 200


@dataclass(frozen=True)
class Setting:
    """An option of a generator.

    Attributes:
        kind: type of its values.
        choices: texts that it may be; empty if it may be any.
        default: None where the generator draws it for every row.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    help: str


@dataclass(frozen=True)
class Generator:
    """A generator of tasks.

    Attributes:
        name: on the command line.
        make: one task of a source of randomness and options.
        paper: where it comes from.
    """

    name: str
    make: Callable[..., Task]
    paper: str

    @property
    def summary(self) -> str:
        return (self.make.__doc__ or "").strip().split("\n")[0]

    @property
    def settings(self) -> list[Setting]:
        """Its options, from the signature of `make`: Annotated[type or None, help, and the texts that it may be]."""
        hints = typing.get_type_hints(self.make, include_extras=True)
        found = []
        for name, parameter in list(inspect.signature(self.make).parameters.items())[1:]:
            kind, text, *choices = typing.get_args(hints[name])
            (plain,) = {*(typing.get_args(kind) or (kind,))} - {type(None)}
            found.append(Setting(name, plain, choices[0] if choices else (), parameter.default, text))
        return found

    def tasks(self, rows: int, seed: int, options: Mapping[str, Any]) -> Iterator[Task]:
        """`rows` different tasks; the first of them are the same however many there are.

        Raises:
            UsageError: there are not so many with these options.
        """
        seen: set[str] = set()
        for row in range(rows):
            for attempt in range(_TRIES):
                # Every row has a source of its own: what one draws does not change the next.
                task = self.make(random.Random(f"{self.name}/{seed}/{row}/{attempt}"), **options)
                key = json.dumps([task.scene, task.question.split("\n")[0], task.columns.get("task")])
                if key not in seen:
                    break
            else:
                given = "".join(f" --{name.replace('_', '-')} {value}" for name, value in options.items())
                raise UsageError(
                    f"--rows {rows}: there are hardly more than {len(seen)} different rows of {self.name}{given}: ask for "
                    "fewer, or leave options out"
                )
            seen.add(key)
            yield task


_GAMES = "arXiv:2505.13886"
GENERATORS = {
    each.name: each
    for each in (
        Generator("langtons-ant", langtons_ant.make, _GAMES),
        Generator("life", life.make, _GAMES),
        Generator("sokoban", sokoban.make, _GAMES),
        Generator("spatial", spatial.make, "arXiv:2604.14144"),
        Generator("puzzles", puzzles.make, "arXiv:2512.14944"),
    )
}
