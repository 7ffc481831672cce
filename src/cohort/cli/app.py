"""The commands put together, and what becomes of errors."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, NoReturn

import typer

import cohort
from cohort.cli.compare import compare
from cohort.cli.console import log, renamings_said
from cohort.cli.data import data
from cohort.cli.doctor import doctor
from cohort.cli.environments import environments
from cohort.cli.eval import eval_
from cohort.cli.explain import explain
from cohort.cli.merge import merge
from cohort.cli.methods import methods
from cohort.cli.reward_model import reward_model
from cohort.cli.rewrite import rewrite
from cohort.cli.score import score
from cohort.cli.sft import sft
from cohort.cli.sweep import sweep
from cohort.cli.train import train
from cohort.cli.view import view
from cohort.distributed.record import AGAIN, in_ranks, leads, reported
from cohort.errors import UsageError, out_of_memory
from cohort.quiet import quiet_command

app = typer.Typer(
    name="cohort",
    help="Reinforcement-learning post-training with GRPO and its published variants.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (train, sft, reward_model, eval_, score, methods, explain, view, merge)
for command in (*COMMANDS, doctor, compare, sweep, environments, rewrite):
    app.command(name=command.__name__.rstrip("_").replace("_", "-"))(command)
app.add_typer(data)


def _version(asked: bool) -> None:
    if asked:
        print(f"cohort {cohort.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if in_ranks() and os.environ["WORLD_SIZE"] != "1" and context.invoked_subcommand != "train":
        if leads():
            raise UsageError(
                f"torchrun has started `cohort {context.invoked_subcommand}` in several processes, which it has no use for: "
                "`cohort train` alone works over many"
            )
        raise typer.Exit


def main() -> None:
    """Run the command; errors that a user can mend are printed without a traceback, with status 2, and those that end
    something in its middle with status 3."""
    quiet_command()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no letter for something is no reason to end.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with reported():
        _run()


def _run() -> None:
    try:
        with renamings_said():
            app()
    except UsageError as error:
        _fail(error, 2)
    except Exception as error:
        # Named here rather than imported: their modules need torch.
        if "RankLost" in [kind.__name__ for kind in type(error).__mro__]:
            _fail(error, AGAIN)
        if type(error).__name__ in ("RewardError", "EngineError", "StorageError", "Diverged", "EnvironmentsFailed"):
            _fail(error, 3)
        if out_of_memory(error):
            _fail(error, 3, "the memory did not suffice; lower micro_tokens, slots, group_size or max_new_tokens: ")
        if isinstance(error, OSError) and error.filename is not None:
            # A folder that cannot be written to, a name that is too long, a disk that is full.
            _fail(f"{error.filename}: {error.strerror}", 2)
        raise


def _fail(error: BaseException | str, status: int, before: str = "") -> NoReturn:
    log(f"cohort: {before}{error}")
    for note in getattr(error, "__notes__", ()):
        log(f"cohort: {note}")
    sys.exit(status)
