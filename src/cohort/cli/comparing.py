"""What the commands that compare share: their options, and what they print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohort.cli.console import printed
from cohort.cli.options import Options, layers, with_options
from cohort.training.config import make_config
from cohort.training.values import DATA, EPISODES, EVALUATION, MACHINE, MODEL, OPTIMISATION, OUTPUT, REWARDS, SAMPLING

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
# Keys that are each run's own, and those that many processes need.
OWN = ("method", "seed", "out", "processes", "shard", "tensor_parallel", "restarts")

of_runs = with_options(
    MODEL,
    DATA,
    REWARDS,
    EPISODES,
    EVALUATION,
    SAMPLING,
    OPTIMISATION,
    MACHINE,
    OUTPUT,
    without=OWN,
    defaults={"steps": 40},
)


def shared(options: Options, config: Path | None, set_: list[str] | None) -> Mapping[str, Any]:
    """Keys that the runs of a comparison share: a run's configuration stands for what it shares with them."""
    *stored, given, named = layers(options, config, set_)
    # Whatever is wrong is said as it was written.
    make_config(*stored, given, named)
    kept = [each.without(OWN) for each in stored]
    return {key: value for each in (*kept, given, named) for key, value in each.values.items()}


def compared(found: Comparison, quiet: bool) -> None:
    """Print what a comparison says, and end with the status that it has."""
    from cohort.experiments.summary import show

    if not quiet:
        show(found, printed())
    if found.stopped:
        raise typer.Exit(130)
    if found.failures:
        raise typer.Exit(1)
