"""`cohort sweep`."""

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
def sweep(
    options: Options,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method or composition, as in grpo or dapo+gdpo.")],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values of a hyperparameter or configuration key, or a range LOW..HIGH, LOW..HIGH:log. May be repeated.",
        ),
    ],
    random: Annotated[
        int | None,
        typer.Option(max=10_000, metavar="N", help="Draw N settings at random; without it, every combination is run."),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Runs of each setting; the first seed is 0.", rich_help_panel=EVALUATION),
    ] = 3,
    tokens: TokensOption = None,
    samples: SamplesOption = 16,
    transfer: TransferOption = None,
    target: TargetOption = None,
    out: OutOption = None,
    quiet: QuietOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compare settings of one method, as a grid or drawn at random, the way compare does methods.

    Without --eval-data a fifth of the data is held out to measure on.
    """
    from cohort.experiments.plan import parse_transfer
    from cohort.experiments.sweep import parse_axis
    from cohort.experiments.sweep import sweep as run
    from cohort.training.display import Display

    found = run(
        method,
        [parse_axis(text) for text in grid],
        draws=random,
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
