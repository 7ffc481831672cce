"""`cohort eval`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cohort.analysis.configuration import EMBEDDED
from cohort.cli.console import check_file, log
from cohort.cli.options import JsonOption, Options, SetOption, layers, with_options
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.training.config import make_config
from cohort.training.values import DATA, EPISODES, EVALUATION, MODEL, OUTPUT, REWARDS, SAMPLING

# Keys of a run's configuration that say nothing of how its model is measured.
OF_TRAINING = ("eval_data", "out", "lora", "pairs", "activations")


SEARCH = "Search"

# How an episode ended that its environment did not end.
ENDED = {
    "done": "",
    "turns": ", out of turns",
    "tokens": ", out of tokens",
    "seconds": ", out of time",
    "unparseable": ", unparseable",
    "failed": ", its environment failed",
}


@with_options(
    MODEL,
    DATA,
    REWARDS,
    EPISODES,
    SAMPLING,
    only={"device", "threads"},
    without={"model", "lora", "pairs", "prompts_per_step", "group_size", "failed_episodes", "teacher"},
)
def eval_(
    options: Options,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, hub id, or toy.")],
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            metavar="K",
            help="Completions of each prompt; one is greedy.",
            rich_help_panel=EVALUATION,
        ),
    ] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts to use.", rich_help_panel=EVALUATION)] = None,
    show: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Print the completions of the first N prompts.", rich_help_panel=OUTPUT),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="OUT.jsonl", help="Write every completion there, a line each.", rich_help_panel=OUTPUT),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ROUNDS",
            help="Find each answer by tree search over its lines, guided by --value (15 rounds in the paper).",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    value: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The value model of --search.", rich_help_panel=SEARCH)
    ] = None,
    value_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Train the value model first, by searches of these prompts with the rewards; it is written to --value.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    value_limit: Annotated[
        int | None, typer.Option(min=1, help="Most prompts of --value-data to use.", rich_help_panel=SEARCH)
    ] = None,
    value_rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of the search of each of them.", rich_help_panel=SEARCH)
    ] = 100,
    value_lr: Annotated[
        float, typer.Option(min=0.0, help="Learning rate of the value model.", rich_help_panel=SEARCH)
    ] = 1e-5,
    as_json: JsonOption = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration of a run; its held-out data is used.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Measure a model: pass@1, pass@k, maj@k, length, truncation, each with a 95 % interval over problems.

    With --json the completions stand in the object too.
    """
    from cohort.training.episodes import answers
    from cohort.training.evaluation import evaluate_model
    from cohort.training.searching import SearchPlan

    if out is not None:
        check_file(out, "--out")
    *stored, given, named = layers({"model": model, **options}, config, set_)
    for layer in stored:
        values = dict(layer.values)
        if values.get("eval_data"):
            values["data"], limit = values["eval_data"], limit or values.get("eval_size")
        kept = {
            k: v for k, v in values.items() if k not in OF_TRAINING and not k.startswith(("engine", "worker", "ray_"))
        }
        stored = [type(layer)(kept, layer.written)]
    made = make_config(*stored, given, named)
    if made.dataset.data is None and model not in EMBEDDED and not answers(made):
        raise UsageError(
            "no data was given: --data takes a file, a hub id or reasoning_gym:TASK?..., --config a run's configuration"
        )
    plan = None
    if search is not None:
        if value is None:
            raise UsageError(
                "--search needs --value FILE: a value model, which --value-data DATA trains and writes there"
            )
        if samples > 1:
            raise UsageError("--search finds one answer to each prompt: leave --samples out")
        if value_data is not None:
            check_file(value, "--value")
        plan = SearchPlan(search, value, value_data, value_limit, value_rounds, value_lr)
    elif value is not None or value_data is not None:
        raise UsageError("--value and --value-data belong to --search ROUNDS, which was not given")
    result = evaluate_model(made, samples=samples, limit=limit, search=plan, log=log)
    completions = result.completions()
    if out is not None:
        lines = "".join(json.dumps(each) + "\n" for each in completions)
        write_atomically(out, lambda aside: aside.write_text(lines, encoding="utf-8"))
    if as_json:
        print(json.dumps({**result.to_dict(), "completions": completions}))
        return
    console = Console()
    for each in completions[: show * samples]:
        _show(each, console)
    table = Table(
        "metric", "value", "95 % interval", title=f"{result.problems} problems, {result.samples} completions each"
    )
    for name, metric in result.metrics.items():
        low, high = result.intervals[name]
        # From one problem nothing is known of how far others differ.
        table.add_row(name, f"{metric:.4g}", "-" if math.isnan(low) else f"[{low:.4g}, {high:.4g}]")
    console.print(table)
    if result.note:
        log(result.note)


def _show(each: Mapping[str, Any], console: Console) -> None:
    """A completion, below its prompt if it is the first one."""
    if each["sample"] == 1:
        answer = "" if each["answer"] is None else f"   (answer: {each['answer']})"
        console.print(Text(f"prompt {each['problem']}: {each['question']}{answer}", style="bold"))
    marks = "" if each["finished"] else ", cut at the token limit"
    if "end" in each:
        turns = len(each["turns"])
        marks = f" in {turns} {'turn' if turns == 1 else 'turns'}{ENDED[each['end']]}"
    reward = "no reward" if each["reward"] is None else f"reward {each['reward']:.3g}"
    verdict = "no verdict" if each["correct"] is None else "right" if each["correct"] else "wrong"
    console.print(Text(f"  {verdict}, {reward}, {each['tokens']} tokens{marks}", style="dim"))
    console.print(Padding(Text(each["completion"] or "(empty)"), (0, 0, 0, 4), expand=False))
