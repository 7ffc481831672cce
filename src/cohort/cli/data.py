"""`cohort data`: a command a generator."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich import box
from rich.table import Table

from cohort.cli.console import log, printed
from cohort.data.generators.table import GENERATORS, Generator, Setting
from cohort.data.generators.task import Form
from cohort.data.generators.writing import check_out, pictures_of, write
from cohort.errors import UsageError

data = typer.Typer(
    name="data",
    help="Make rows to train on: questions with exact answers, which a program generates. Without a generator, list them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.callback(invoke_without_command=True)
def _listed(
    context: typer.Context,
    list_: Annotated[bool, typer.Option("--list", metavar="", help="List the generators.", show_default=False)] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="List them as JSON.", show_default=False)] = False,
) -> None:
    if context.invoked_subcommand is not None and not (list_ or as_json):
        return
    if as_json:
        rows = [{"generator": each.name, "what": each.summary, "paper": each.paper} for each in GENERATORS.values()]
        print(json.dumps(rows))
    else:
        table = Table("generator", "what", "paper", box=box.SIMPLE)
        for each in GENERATORS.values():
            table.add_row(each.name, each.summary, each.paper.removeprefix("arXiv:"))
        printed().print(table, markup=False)
        print(
            "cohort data GENERATOR --out FILE.jsonl writes rows; cohort data GENERATOR --help shows what it can vary."
        )
    raise typer.Exit


def _parameter(setting: Setting) -> inspect.Parameter:
    option = typer.Option(
        f"--{setting.name.replace('_', '-')}",
        help=setting.help[0].upper() + setting.help[1:] + ".",
        metavar=f"[{'|'.join(setting.choices)}]" if setting.choices else None,
        rich_help_panel="What it varies",
        show_default=setting.default is not None,
    )
    annotation: Any = Annotated[setting.kind | None, option]
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=setting.default, annotation=annotation
    )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"--{name.replace('_', '-')} {value}: expected one of {', '.join(choices)}")


def _command(generator: Generator) -> None:
    """Add the command of a generator."""
    settings = generator.settings

    def run(
        *,
        out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="Where the rows are written.")],
        rows: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
        seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
        form: Annotated[
            str,
            typer.Option(
                metavar=f"[{'|'.join(get_args(Form))}]",
                help="Show the scene as text, as pictures in a folder beside the file, or both.",
            ),
        ] = "text",
        replace: Annotated[
            bool, typer.Option("--replace", metavar="", help="Replace the file if it exists.", show_default=False)
        ] = False,
        **given: Any,
    ) -> None:
        check_out(out, replace=replace)
        _check_choice("form", form, get_args(Form))
        options = {name: value for name, value in given.items() if value is not None}
        for setting in settings:
            if setting.choices and setting.name in options:
                _check_choice(setting.name, options[setting.name], setting.choices)
        many = write(out, generator.tasks(rows, seed, options), form, replace=replace)  # type: ignore[arg-type]
        beside = "" if form == "text" else f", pictures in {pictures_of(out)}"
        log(f"{many} rows: {out}{beside}")

    own = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = [*own, *map(_parameter, settings)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    data.command(name=generator.name, help=f"{generator.summary}. Source: {generator.paper}.")(run)


for _each in GENERATORS.values():
    _command(_each)
