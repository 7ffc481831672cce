"""`cohort eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cohort.cli.console import say
from cohort.cli.options import JsonOption, Options, SetOption, layers, with_options
from cohort.errors import UsageError
from cohort.training.config import make_config
from cohort.training.values import DATA, EVALUATION, MODEL, REWARDS, SAMPLING

# Keys of a run's configuration that say nothing of how its model is measured.
OF_TRAINING = ("eval_data", "out", "lora", "pairs", "activations")


@with_options(
    MODEL,
    DATA,
    REWARDS,
    SAMPLING,
    only={"device", "threads"},
    without={"model", "lora", "pairs", "prompts_per_step", "group_size"},
)
def eval_(
    options: Options,
    model: Annotated[str, typer.Argument(help="Model folder, hub id, or nursery.")],
    samples: Annotated[
        int,
        typer.Option(min=1, metavar="K", help="Completions of each prompt; one is greedy.", rich_help_panel=EVALUATION),
    ] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts to use.", rich_help_panel=EVALUATION)] = None,
    as_json: JsonOption = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration of a run; its held-out data is used.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Measure a model: pass@1, pass@k, maj@k, length, truncation, each with a bootstrap 95 % interval over problems."""
    from cohort.training.evaluation import evaluate_model

    *stored, given, named = layers({"model": model, **options}, config, set_)
    for layer in stored:
        values = dict(layer.values)
        if values.get("eval_data"):
            values["data"], limit = values["eval_data"], limit or values.get("eval_size")
        kept = {k: v for k, v in values.items() if k not in OF_TRAINING and not k.startswith("engine")}
        stored = [type(layer)(kept, layer.written)]
    made = make_config(*stored, given, named)
    if made.data is None and model != "nursery":
        raise UsageError(
            "no data was given: --data takes a file, a hub id or reasoning_gym:TASK?..., --config a run's configuration"
        )
    result = evaluate_model(made, samples=samples, limit=limit, say=say)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    table = Table(
        "metric", "value", "95 % interval", title=f"{result.problems} problems, {result.samples} completions each"
    )
    for name, value in result.metrics.items():
        low, high = result.intervals[name]
        table.add_row(name, f"{value:.4g}", f"[{low:.4g}, {high:.4g}]")
    Console().print(table)
