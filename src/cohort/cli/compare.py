"""`cohort compare` and `cohort sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohort.cli.console import printed
from cohort.cli.options import ConfigOption, Options, QuietOption, SetOption, layers, with_options
from cohort.training.config import make_config
from cohort.training.values import DATA, EVALUATION, MACHINE, MODEL, OPTIMISATION, OUTPUT, REWARDS, SAMPLING

if TYPE_CHECKING:
    from cohort.experiments.comparison import Comparison

TokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="End each run once it has sampled N tokens (or made its steps), for equal budgets.",
        rich_help_panel=OPTIMISATION,
    ),
]
SamplesOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=100_000,
        metavar="K",
        help="Completions of each evaluation problem; 0 measures none.",
        rich_help_panel=EVALUATION,
    ),
]
TransferOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=DATA", help="Further data to measure on. May be repeated.", rich_help_panel=EVALUATION),
]
TargetOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Accuracy to count tokens until; default: one that all methods reach.",
        rich_help_panel=EVALUATION,
    ),
]
OutOption = Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the comparison.", rich_help_panel=OUTPUT)]
# Keys that are each run's own.
OWN = ("method", "seed", "out")

of_runs = with_options(
    MODEL, DATA, REWARDS, EVALUATION, SAMPLING, OPTIMISATION, MACHINE, OUTPUT, without=OWN, defaults={"steps": 40}
)


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
        options=_shared(options, config, set_),
        seeds=seeds,
        tokens=tokens,
        samples=samples,
        transfer=parse_transfer(transfer or []),
        target=target,
        out=out,
        display=Display(quiet=quiet),
    )
    _compared(found, quiet)


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
        options=_shared(options, config, set_),
        seeds=seeds,
        tokens=tokens,
        samples=samples,
        transfer=parse_transfer(transfer or []),
        target=target,
        out=out,
        display=Display(quiet=quiet),
    )
    _compared(found, quiet)


def _shared(options: Options, config: Path | None, set_: list[str] | None) -> Mapping[str, Any]:
    """Keys that the runs of a comparison share: a run's configuration stands for what it shares with them."""
    *stored, given, named = layers(options, config, set_)
    # Whatever is wrong is said as it was written.
    make_config(*stored, given, named)
    kept = [each.without(OWN) for each in stored]
    return {key: value for each in (*kept, given, named) for key, value in each.values.items()}


def _compared(found: Comparison, quiet: bool) -> None:
    from cohort.experiments.summary import show

    if not quiet:
        show(found, printed())
    if found.stopped:
        raise typer.Exit(130)
    if found.failures:
        raise typer.Exit(1)
