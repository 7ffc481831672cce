"""`cohort score`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cohort.cli.console import check_file, log
from cohort.cli.options import Options, resolved, with_options
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.training.values import DATA, OUTPUT


@with_options(
    only={"data", "reward", "prompt_field", "answer_field", "on_reward_error", "reward_timeout", "reward_process"}
)
def score(
    options: Options,
    completion_field: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column with a text, or a list of texts.", rich_help_panel=DATA)
    ] = "completion",
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT.jsonl", help="Write there instead of printing.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Apply rewards to completions that stand in a file; one object a completion, with every component."""
    from cohort.training.evaluation import score_rows

    made = resolved(options)
    if made.dataset.data is None:
        raise UsageError("no data was given: --data takes a file with completions")
    if json_out is not None:
        check_file(json_out, "--json")
    rows = list(
        score_rows(
            made.dataset.data,
            completion_field=completion_field,
            reward=made.rewards.reward,
            prompt_field=made.dataset.prompt_field,
            answer_field=made.dataset.answer_field,
            timeout=made.rewards.reward_timeout,
            on_error=made.rewards.on_reward_error,
            process=made.rewards.reward_process,
            log=log,
        )
    )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if json_out is not None:
        write_atomically(json_out, lambda aside: aside.write_text(text, encoding="utf-8"))
    else:
        sys.stdout.write(text)
    names = [k for k in rows[0] if k not in ("row", "sample")]
    means = ((k, [row[k] for row in rows if isinstance(row[k], (int, float))]) for k in names)
    log(f"{len(rows)} completions; mean " + ", ".join(f"{k} {sum(v) / len(v):.4g}" for k, v in means if v))
