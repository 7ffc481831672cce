"""`cohort rewrite`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort.cli.console import check_file, log
from cohort.cli.options import ConfigOption, Options, SetOption, layers, with_options
from cohort.files import write_atomically
from cohort.training.config import from_python, make_config
from cohort.training.values import DATA, MODEL, OUTPUT, SAMPLING

# A rewritten question is longer than most answers that a run draws.
DEFAULTS = {"max_new_tokens": 1024}
# How a server is asked.
SERVER = ("judge_calls", "judge_tokens", "judge_concurrency", "judge_timeout", "judge_key")


@with_options(
    MODEL,
    DATA,
    SAMPLING,
    only={"seed", "device", "threads", *SERVER},
    without={"model", "lora", "pairs", "prompts_per_step", "group_size", "agent_models", "teacher"},
    defaults=DEFAULTS,
)
def rewrite(
    options: Options,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, hub id, or the URL of a server.")],
    out: Annotated[Path, typer.Option(metavar="OUT.jsonl", help="Where the rows are written.", rich_help_panel=OUTPUT)],
    aspect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ASPECT",
            help="background, term or sub-problem; all by default. May be repeated.",
            rich_help_panel=DATA,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts to use.", rich_help_panel=DATA)] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make data larger: a model rewrites every question in three ways that keep its answer.

    The file has the rows as they were, each followed by the rewritten ones; train on it like on the original.
    """
    from cohort.signals.rewriting import ASPECTS
    from cohort.training.rewriting import rewrite_rows

    check_file(out, "--out")
    made = make_config(from_python(DEFAULTS), *layers({"model": model, **options}, config, set_))

    def keep(rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, default=str) + "\n" for row in rows)
        write_atomically(out, lambda aside: aside.write_text(text, encoding="utf-8"))

    rewrite_rows(made, aspects=tuple(aspect or ASPECTS), limit=limit, log=log, keep=keep)
    log(f"the data: {out}")
