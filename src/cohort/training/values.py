"""What the value of a configuration key may be, and how a key is marked as an option of the command line."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

# Groups of options, as the help of a command shows them.
MODEL, DATA, REWARDS, EPISODES, EVALUATION = "Model", "Data", "Rewards", "Episodes", "Evaluation"
SAMPLING, OPTIMISATION, MACHINE, OUTPUT = "Sampling", "Optimisation", "Machine", "Output"


@dataclass(frozen=True)
class Option:
    """Marks a key that has an option of its own, in every command where its group means something (`cohort.cli.options`).

    Attributes:
        panel: group of the help.
        metavar: what stands for the value in the help; None says its type.
    """

    panel: str
    metavar: str | None = None


def number(value: Any) -> Any:
    """A number of numpy or torch as Python's; true and false are none."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def text(value: Any) -> Any:
    """A path as its text, and what torch calls a device or a type; no text that no file and no tokenizer takes."""
    if isinstance(value, Path):
        value = str(value)
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        value = str(value).removeprefix("torch.")
    if isinstance(value, int | float | bytes):
        raise ValueError("Input should be a text; in a file, put it in quotes")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("Input holds a NUL character")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("Input should be a text in UTF-8")
    return value


# What fits the integers of the libraries that count it.
Count = Annotated[int, BeforeValidator(number), Field(le=2**31 - 1)]
Number = Annotated[float, BeforeValidator(number)]
AnyNumber = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(number)]
Text = Annotated[str, BeforeValidator(text)]
Name = Annotated[Text, Field(min_length=1)]


def kinds(annotation: Any) -> set[Any]:
    """The types that a value may have, texts for texts of a choice."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return kinds(arguments[0])
    if origin in (typing.Union, UnionType):
        return set().union(*(kinds(each) for each in arguments))
    return {str} if origin is Literal else {origin or annotation}
