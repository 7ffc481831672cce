"""`cohort compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from cohort.cli.comparing import (
    OutOption,
    SamplesOption,
    TargetOption,
    TokensOption,
    TransferOption,
    compared,
    of_runs,
    shared,
)
from cohort.cli.options import ConfigOption, Options, QuietOption, SetOption
from cohort.training.values import EVALUATION


@of_runs
def compare(
    options: Options,
    what: Annotated[
        list[str], typer.Argument(metavar="METHOD METHOD... | RUN RUN...", help="Methods to run, or folders of runs.")
    ],
    seeds: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Runs of each method; the first seed is 0.", rich_help_panel=EVALUATION),
    ] = 5,
    tokens: TokensOption = None,
    samples: SamplesOption = 16,
    transfer: TransferOption = None,
    target: TargetOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compare methods fairly: same model, prompts, problems and seeds; or compare finished runs.

    The same command goes on after an interruption. The report is one HTML page; the tables beside it are CSV and JSON.
    Without --eval-data a fifth of the data is held out to measure on.
    """
    from cohort.experiments.compare import compare as run
    from cohort.experiments.plan import parse_transfer
    from cohort.training.display import Display

    found = run(
        what,
        options=shared(options, config, set_),
        seeds=seeds,
        tokens=tokens,
        samples=samples,
        transfer=parse_transfer(transfer or []),
        target=target,
        out=out,
        display=Display(quiet=quiet),
    )
    compared(found, quiet)
