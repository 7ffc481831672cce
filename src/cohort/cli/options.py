"""Options made of the configuration's keys: written once, there, and taken by every command where they mean something."""

from __future__ import annotations

import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from cohort.errors import Renamed
from cohort.training.config import FIELDS, Layer, TrainConfig, from_file, from_options, from_set, make_config
from cohort.training.values import Option, kinds

Options = Mapping[str, Any]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any configuration key. May be repeated.")
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", metavar="", help="Say nothing but errors.", rich_help_panel="Output", show_default=False),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", metavar="", help="Print one JSON object.", rich_help_panel="Output", show_default=False),
]


def with_options(
    *panels: str, only: Collection[str] = (), without: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of its parameter `options`, those of configuration keys; it gets the ones that were given.

    Args:
        panels: groups of keys that mean something to the command.
        only: keys of other groups that do.
        without: keys of these groups that do not.
        defaults: the command's own, for its help.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        marked = [
            (key, info, mark)
            for key, info in FIELDS.items()
            for mark in info.metadata
            if isinstance(mark, Option) and (mark.panel in panels or key in only) and key not in without
        ]
        # The help shows groups in the order in which they come first.
        marked.sort(key=lambda each: panels.index(each[2].panel) if each[2].panel in panels else len(panels))
        made = {
            key: _parameter(key, info, mark, (defaults or {}).get(key, info.get_default(call_default_factory=True)))
            for key, info, mark in marked
        }

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {key: values.pop(key) for key in made}
            if values.get("quiet"):
                warnings.simplefilter("ignore", Renamed)
            command(options={k: v for k, v in given.items() if v is not None and v != []}, **values)

        own = inspect.signature(command).parameters
        hints = typing.get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in own.items():
            if name == "options":
                parameters += made.values()
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(key: str, info: FieldInfo, mark: Option, default: Any) -> inspect.Parameter:
    """A key as a parameter that typer makes an option of. Values stay texts: the configuration reads and checks them."""
    types, choices = kinds(info.annotation), _choices(info.annotation)
    flag = f"--{key.replace('_', '-')}"
    several = list in types
    text = (info.description or key).split("; from Python")[0]
    text = text[0].upper() + text[1:] + "." + (" May be repeated." if several else "")
    if default not in (None, [], "") and bool not in types:
        text += escape(f"  [default: {default:g}]" if isinstance(default, float) else f"  [default: {default}]")
    if bool in types:
        annotation: Any = bool | None
        # What is on by itself somewhere can be put off too.
        names = f"{flag}/--no-{flag[2:]}" if choices else flag
        made = typer.Option(names, help=text, metavar="", rich_help_panel=mark.panel, show_default=False)
    else:
        annotation = list[str] | None if several else str | None
        metavar = mark.metavar or (f"[{'|'.join(choices)}]" if choices else _metavar(types))
        made = typer.Option(flag, help=text, metavar=metavar, rich_help_panel=mark.panel)
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, made])


def _choices(annotation: Any) -> list[str]:
    """The texts that a value may be, if there are only some."""
    if typing.get_origin(annotation) is Literal:
        return [str(each) for each in typing.get_args(annotation)]
    return [text for each in typing.get_args(annotation) for text in _choices(each)]


def _metavar(types: set[Any]) -> str:
    return "INTEGER" if int in types else "FLOAT" if float in types else "TEXT"


def layers(options: Options, config: Path | None, set_: list[str] | None) -> list[Layer]:
    """What a command was given, a later layer before an earlier one."""
    return [*([from_file(config)] if config else []), from_options(options), from_set(set_ or [])]


def resolved(options: Options, config: Path | None = None, set_: list[str] | None = None) -> TrainConfig:
    """The configuration that a command was given.

    Raises:
        UsageError: unknown keys, or values that they cannot have.
    """
    return make_config(*layers(options, config, set_))
