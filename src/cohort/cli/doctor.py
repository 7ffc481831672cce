"""`cohort doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from cohort.cli.console import log, printed
from cohort.cli.options import JsonOption, Options, SetOption, resolved, with_options
from cohort.errors import UsageError
from cohort.training.values import DATA, MODEL, OUTPUT, REWARDS


@with_options(
    MODEL,
    DATA,
    REWARDS,
    only={"eval_data", "max_new_tokens", "device"},
    without={"lora", "pairs", "agent_models", "teacher"},
)
def doctor(
    options: Options,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Folder of a run, finished or going on.")] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="With --model: draw K completions of some prompts, to see which are solved.",
            rich_help_panel=DATA,
        ),
    ] = 0,
    limit: Annotated[
        int, typer.Option(min=1, help="With --reward: most rows whose answers are scored.", rich_help_panel=DATA)
    ] = 300,
    strict: Annotated[
        bool,
        typer.Option("--strict", metavar="", help="Exit with status 1 if there is an alarm.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: JsonOption = False,
    set_: SetOption = None,
) -> None:
    """Say what is wrong with a run, or with data and rewards before any: what, where, what it means, what to try.

    Name a run, or data with --data (and --reward, --eval-data, and --model for how long the prompts are). The exit status is
    0 whatever is found, unless --strict is given.
    """
    from cohort.analysis.store import open_run
    from cohort.doctor.examine import examine
    from cohort.doctor.show import show

    if run is not None:
        if options or set_ or samples:
            raise UsageError("name either a run or --data: a run brings its own data and rewards")
        named = Path("runs") / run
        report = examine(open_run(named if not os.path.lexists(run) and os.path.isdir(named) else run))
    else:
        from cohort.doctor.dataset import examine_data

        if not {"data", "model"} & set(options):
            raise UsageError("name a run's folder, or data to look at with --data (and --reward, --model, --eval-data)")
        report = examine_data(resolved(options, None, set_), samples=samples, limit=limit, log=log)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        show(report, printed())
    if strict and any(finding.severity == "alarm" for finding in report.findings):
        raise typer.Exit(1)
