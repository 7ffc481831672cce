"""`cohort train`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from cohort.analysis.configuration import EMBEDDED
from cohort.cli.console import log
from cohort.cli.options import ConfigOption, Options, QuietOption, SetOption, resolved, with_options
from cohort.distributed.record import leads
from cohort.errors import UsageError
from cohort.training.values import DATA, EPISODES, EVALUATION, MACHINE, MODEL, OPTIMISATION, OUTPUT, REWARDS, SAMPLING


@with_options(MODEL, DATA, REWARDS, EPISODES, EVALUATION, SAMPLING, OPTIMISATION, MACHINE, OUTPUT)
def train(
    options: Options,
    method: Annotated[
        str | None, typer.Argument(metavar="METHODS", help="As in grpo, dapo+gdpo or ngrpo(clip_high=0.3).")
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            "--example",
            metavar="[sums|tools]",
            help="An embedded model with its task: sums (the default), or tools, a calculator to call.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", metavar="", help="Continue the run in its folder, if there is one.", rich_help_panel=OUTPUT
        ),
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="With --resume: go on also with other data, rewards, initial weights or settings.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    quiet: QuietOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Post-train a model. Without arguments, or with --example: an embedded model and its task, in about three minutes."""
    from cohort.distributed.launch import launch, launches
    from cohort.distributed.run import train as run
    from cohort.doctor.watch import observers
    from cohort.training.display import Display

    if example is not None:
        options = {**options, "model": _example(example, options)}
    made = resolved({**options, **({} if method is None else {"method": method})}, config, set_)
    if launches(made):
        raise typer.Exit(launch(made, sys.argv[1:], log))
    try:
        result = run(
            made, resume=resume, accept_changes=accept_changes, display=Display(quiet=quiet), observers=observers(made)
        )
    except KeyboardInterrupt as stopped:
        for note in getattr(stopped, "__notes__", ()):
            log(f"stopped at once; {note}")
        raise
    if not leads():
        return
    if result.stopped:
        log(
            f"stopped after step {result.summary['steps']}; continue with the same command and --resume --out {result.folder}"
        )
        raise typer.Exit(130)
    if not quiet:
        _farewell(result, made)


def _example(name: str, options: Options) -> str:
    """The model of an embedded example.

    Raises:
        UsageError: there is no such example, or a model was named as well.
    """
    from cohort.training.toy import NAMES

    if name not in NAMES:
        raise UsageError(f"--example '{name}': there are {', '.join(NAMES)}")
    if "model" in options:
        raise UsageError("--example brings a model of its own: leave --model out")
    return NAMES[name]


def _farewell(result: Any, config: Any) -> None:
    summary, verdict = result.summary, result.summary["verdict"]
    print()
    if "accuracy_first_step" in summary and summary["steps"] > 1:
        print(
            f"{verdict} of the rollouts it drew: {summary['accuracy_first_step']:.1%} in step 1, "
            f"{summary['accuracy_last_step']:.1%} in step {summary['steps']} (sampled)"
        )
    if "accuracy_before" in summary and "accuracy_after" in summary:
        problems = summary["evaluation_after"]["problems"]
        print(
            f"{verdict} on {problems} unseen problems: {summary['accuracy_before']:.1%} before, "
            f"{summary['accuracy_after']:.1%} after (greedy)"
        )
    steps = "1 step" if summary["steps"] == 1 else f"{summary['steps']} steps"
    print(f"{steps}, {summary['sampled_tokens']} tokens sampled, {summary['seconds']:.0f} s")
    print(f"the run: {result.folder}")
    if config.policy.lora:
        print(f"the adapter: {result.model}")
        print(f"a whole model of it: cohort merge {result.model} --out {result.folder}/merged")
    else:
        print(f"the model: {result.model}")
    if config.policy.model in EMBEDDED and config.dataset.data is None and config.dataset.pairs is None:
        # Somebody tries it out: later runs are somebody's own, who knows.
        print("what next:")
        for what, command in {
            "curves, rollouts and tokens, in the browser": f"cohort view {result.folder}",
            "pass@k and maj@k": f"cohort eval {result.model} --config {result.folder}/config.yaml --samples 8",
            "your model, your data": "cohort train dapo+gdpo --model YOUR_MODEL --data YOUR.jsonl --reward math",
        }.items():
            print(f"  {what}:\n    {command}")
