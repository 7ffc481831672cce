"""`cohort reward-model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort.cli.console import free, log
from cohort.cli.options import ConfigOption, JsonOption, Options, QuietOption, SetOption, layers, with_options
from cohort.errors import UsageError
from cohort.training.config import from_python, make_config
from cohort.training.values import DATA, EVALUATION, MODEL, OPTIMISATION, OUTPUT

MICRO_TOKENS = 16384
DEFAULTS = {"steps": 200, "lr": 1e-5, "warmup": 10, "schedule": "cosine", "micro_tokens": MICRO_TOKENS}
READ = "What is read"


@with_options(
    MODEL,
    DATA,
    OPTIMISATION,
    only={"seed", "device", "threads", "micro_tokens", "eval_data"},
    without={"pairs", "answer_field", "updates", "epochs", "agent_models", "teacher", "bos", "prompt_format"},
    defaults=DEFAULTS,
)
def reward_model(
    options: Options,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the model is written.", rich_help_panel=OUTPUT)
    ] = None,
    completion_field: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column with the completion.", rich_help_panel=DATA)
    ] = "completion",
    score_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Column with a score, an axis each. May be repeated.", rich_help_panel=DATA
        ),
    ] = None,
    label_field: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column with a label, 0 or 1.", rich_help_panel=DATA)
    ] = "label",
    ranked: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns with completions, best first, as a,b,c.", rich_help_panel=DATA),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of the prompts to measure on, without --eval-data.", rich_help_panel=EVALUATION
        ),
    ] = 0.1,
    only_evaluate: Annotated[
        bool,
        typer.Option(
            "--only-evaluate",
            metavar="",
            help="Measure --model on all rows; train nothing.",
            rich_help_panel=EVALUATION,
        ),
    ] = False,
    members: Annotated[
        int, typer.Option(min=1, max=64, help="Models to train alike: an ensemble.", rich_help_panel=OPTIMISATION)
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1, max=2**20, help="Rows a step.", rich_help_panel=OPTIMISATION)] = 32,
    negative_share: Annotated[
        float,
        typer.Option(help="Share of the rows with label 0 to learn from; scores are corrected.", rich_help_panel=DATA),
    ] = 1.0,
    sampled: Annotated[
        bool,
        typer.Option("--sampled", metavar="", help="The data holds only that share already.", rich_help_panel=DATA),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="[all|thought|answer]", help="What of a completion.  \\[default: all]", rich_help_panel=READ
        ),
    ] = None,
    no_prompt: Annotated[
        bool, typer.Option("--no-prompt", metavar="", help="Leave the prompt out.", rich_help_panel=READ)
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="[chat|pair|text]", help="How prompt and completion become one text.", rich_help_panel=READ
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Most tokens; the beginning is left out.", rich_help_panel=READ)
    ] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Train a reward model on pairs, scores or labels, and measure it; the reward rm:DIR uses it."""
    from cohort.data.judged import read_judged
    from cohort.rewards.reward_models import CHOICES
    from cohort.training import reward_measures as measures
    from cohort.training import reward_model as training
    from cohort.training import toy
    from cohort.training.build import prompt_spec
    from cohort.training.device import pick_device, pick_dtype
    from cohort.training.display import Display
    from cohort.training.interrupt import Interrupt
    from cohort.training.reward_fit import Plan

    made = make_config(from_python(DEFAULTS), *layers(options, config, set_))
    for name, value in (("part", part), ("layout", layout)):
        if value is not None and value not in CHOICES[name]:
            raise UsageError(f"--{name} is one of {', '.join(CHOICES[name])}, not {value!r}")
    if not 0 < negative_share <= 1:
        raise UsageError(f"--negative-share is a share above 0 and at most 1, not {negative_share:g}")
    if "model" not in made.given():
        raise UsageError("no model was given: --model takes a folder, a hub id, or toy")
    if made.dataset.data is None:
        raise UsageError("no data was given: --data takes judged completions, in any format that train takes")
    if out is None and not only_evaluate:
        raise UsageError("no place was given for the model: --out takes a folder")
    if out is not None:
        free(out)
    display = Display(quiet=quiet)
    device = pick_device(made.machine.device)
    dtype = pick_dtype(made.policy.dtype, device)
    if made.machine.threads:
        import torch

        torch.set_num_threads(made.machine.threads)
    spec = prompt_spec(made)
    how: dict[str, Any] = {"completion_field": completion_field, "label_field": label_field, "log": display.log}
    how |= {"score_fields": score_field or (), "ranked": [each.strip() for each in ranked.split(",")] if ranked else ()}
    judged = read_judged(made.dataset.data, spec, **how)
    model = made.policy.model
    model = str(toy.folder(display.log, name=model)) if model in toy.EXAMPLES else model
    if only_evaluate:
        read = {"part": part, "prompt": False if no_prompt else None, "layout": layout, "length": length}
        found = measures.measured(model, judged, device=device, dtype=dtype, **read)
        for line in measures.summary(judged.kind, found):
            display.log(line)
        if json_:
            print(json.dumps({"kind": judged.kind, "evaluated": found}))
        return
    if made.evaluation.eval_data is not None:
        held = read_judged(made.evaluation.eval_data, spec, **how)
        if (held.kind, held.labels) != (judged.kind, judged.labels):
            raise UsageError(f"--eval-data has {held.kind} ({', '.join(held.labels)}), and --data {judged.kind}")
    else:
        judged, held = training.split(judged, held_out, made.seed)
    plan = Plan(
        model,
        members=members,
        steps=made.optimisation.steps,
        batch_size=batch_size,
        lr=made.optimisation.lr,
        warmup=made.optimisation.warmup,
        schedule=made.optimisation.schedule,
        weight_decay=made.optimisation.weight_decay,
        grad_clip=made.optimisation.grad_clip,
        micro_tokens=made.machine.micro_tokens or MICRO_TOKENS,
        seed=made.seed,
        negative_share=negative_share,
        sampled=sampled,
        part=part or "all",
        prompt=not no_prompt,
        layout=layout,  # type: ignore[arg-type]
        length=length,
        lora=made.policy.lora,
    )
    display.log(
        f"{len(judged.rows)} rows to learn from ({judged.kind}: {', '.join(judged.labels)}), {len(held.rows)} to measure on"
    )
    interrupt = Interrupt(display.log, hung_up=display.hush)

    def begin(what: str) -> None:
        display.end()
        display.begin(what, plan.steps)

    assert out is not None
    with interrupt.watching():
        trained = training.train_reward_model(
            judged,
            held,
            plan,
            out,
            device=device,
            dtype=dtype,
            trust_remote_code=made.policy.trust_remote_code,
            begin=begin,
            report=lambda step, loss: display.step(step, {"loss": loss}),
            stop=lambda: interrupt.asked,
            log=display.log,
        )
        display.end()
    if trained.folder is None:
        log(
            f"stopped with {len(trained.steps)} of {members} members; "
            + (
                f"the same command goes on with them (they are in {training.aside(out)})"
                if trained.steps
                else "nothing is written"
            )
        )
        raise typer.Exit(130)
    for line in measures.summary(judged.kind, trained.record.evaluated):
        display.log(line)
    display.log(f"the reward model: {out} (as a reward: rm:{out})")
    if json_:
        print(json.dumps({"out": str(out), **training.described(trained.record)}))
    if trained.steps[0] < plan.steps:
        log(f"stopped after step {trained.steps[0]} of {plan.steps}; the model so far is {out}")
        raise typer.Exit(130)
