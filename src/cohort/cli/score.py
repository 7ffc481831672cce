"""`cohort score`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort.cli.console import check_file, log
from cohort.cli.options import Options, resolved, with_options
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.training.values import DATA, OUTPUT, REWARDS

JUDGING = {
    "judge_calls",
    "judge_tokens",
    "judge_on_spent",
    "judge_concurrency",
    "judge_timeout",
    "judge_reply",
    "judge_key",
}


@with_options(
    only={
        *("data", "prompt_field", "answer_field"),
        *("reward", "reward_gate", "reward_clip", "reward_schedule"),
        *("on_reward_error", "reward_timeout", "reward_process", "reward_workers"),
        *JUDGING,
    }
)
def score(
    options: Options,
    completion_field: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column with a text, or a list of texts.", rich_help_panel=DATA)
    ] = "completion",
    step: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="With --reward-schedule: weights after so many steps; those at its end by default.",
            rich_help_panel=REWARDS,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that says whether a completion is right: print how good each reward's verdicts are.",
            rich_help_panel=DATA,
        ),
    ] = None,
    labels_at: Annotated[
        float,
        typer.Option(
            metavar="VALUE", help="With --labels: a completion is accepted from this value on.", rich_help_panel=REWARDS
        ),
    ] = 1.0,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT.jsonl", help="Write there instead of printing.", rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Apply rewards to completions that stand in a file; one object a completion, with every component.

    With --labels the objects that are printed are one a reward: precision, recall, F1, false-negative and false-positive rate.
    """
    from cohort.training.evaluation import score_rows, verdict_rates

    made = resolved(options)
    if step is not None and not made.rewards.reward_schedule:
        raise UsageError("--step asks for the weights after so many steps: that takes a --reward-schedule")
    if made.dataset.data is None:
        raise UsageError("no data was given: --data takes a file with completions")
    if json_out is not None:
        check_file(json_out, "--json")
    rows = list(
        score_rows(
            made.dataset.data,
            completion_field=completion_field,
            reward=made.rewards.reward,
            gates=made.rewards.reward_gate,
            clips=made.rewards.reward_clip,
            schedules=made.rewards.reward_schedule,
            step=step,
            prompt_field=made.dataset.prompt_field,
            answer_field=made.dataset.answer_field,
            label_field=labels,
            timeout=made.rewards.reward_timeout,
            on_error=made.rewards.on_reward_error,
            process=made.rewards.reward_process,
            workers=made.rewards.reward_workers,
            judging=made.rewards.judging,
            log=log,
        )
    )
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if json_out is not None:
        write_atomically(json_out, lambda aside: aside.write_text(text, encoding="utf-8"))
    elif labels is None:
        sys.stdout.write(text)
    parts = [k.removeprefix("weight/") for k in rows[0] if k.startswith("weight/")]
    for name in parts:
        before, after = _mean(rows, f"raw/{name}"), _mean(rows, name)
        log(f"{name}: weight {rows[0][f'weight/{name}']:g}, mean {before} before gates and ranges, {after} after")
    about = {"row", "sample", "label", *(f"{kind}/{name}" for name in parts for kind in ("raw", "weight"))}
    means = ((k, _mean(rows, k)) for k in rows[0] if k not in about)
    log(f"{len(rows)} completions; mean " + ", ".join(f"{k} {mean}" for k, mean in means if mean))
    if labels is not None:
        for name, found in verdict_rates(rows, _components(rows[0]), labels_at).items():
            print(json.dumps({"reward": name, **asdict(found)}))


def _components(row: dict[str, Any]) -> list[str]:
    """Names of the rewards: what stands behind the weighted sum, but for what is told about them."""
    behind = list(row)[list(row).index("reward") + 1 :]
    return [name for name in behind if not name.startswith(("raw/", "weight/"))]


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    """The mean of a column's numbers, as text; empty where it has none."""
    known = [row[name] for row in rows if isinstance(row[name], (int, float))]
    return f"{sum(known) / len(known):.4g}" if known else ""
