"""`cohort sft`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cohort.cli.console import free, log
from cohort.cli.options import ConfigOption, Options, QuietOption, SetOption, layers, with_options
from cohort.errors import UsageError
from cohort.files import save_new
from cohort.training.config import from_python, make_config
from cohort.training.values import DATA, MODEL, OPTIMISATION, OUTPUT

# Longer than a run's, and with a larger learning rate: the target is given, not found.
MICRO_TOKENS = 16384
DEFAULTS = {"steps": 200, "lr": 1e-5, "warmup": 10, "schedule": "cosine", "micro_tokens": MICRO_TOKENS}


@with_options(
    MODEL,
    DATA,
    OPTIMISATION,
    only={"seed", "device", "threads", "micro_tokens", "activations"},
    without={"pairs", "answer_field", "updates", "epochs", "agent_models", "teacher"},
    defaults=DEFAULTS,
)
def sft(
    options: Options,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model is written.", rich_help_panel=OUTPUT)],
    completion_field: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column with the completion.", rich_help_panel=DATA)
    ] = "completion",
    thought_dropout: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0,
            max=1,
            help="Put thought and answer (the completion) in tags, and leave out each thought with this probability.",
            rich_help_panel=DATA,
        ),
    ] = None,
    thought_field: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column with the thought; where a row has none, the model writes it.",
            rich_help_panel=DATA,
        ),
    ] = "thought",
    thought_tokens: Annotated[
        int,
        typer.Option(min=1, max=2**20, help="Most tokens of a thought that the model writes.", rich_help_panel=DATA),
    ] = 256,
    answer_tag: Annotated[
        str, typer.Option(metavar="TAG", help="Tag of the answer behind a thought.", rich_help_panel=DATA)
    ] = "answer",
    batch_size: Annotated[int, typer.Option(min=1, max=2**20, help="Pairs a step.", rich_help_panel=OPTIMISATION)] = 32,
    quiet: QuietOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Fine-tune a model on pairs of prompt and completion."""
    import torch

    from cohort.data.prompts import check_source, read_source
    from cohort.training.build import prompt_spec
    from cohort.training.display import Display
    from cohort.training.interrupt import Interrupt
    from cohort.training.models import load_model
    from cohort.training.opening import log_text
    from cohort.training.sft import fine_tune, load_prompts_of_rows, pairs_of
    from cohort.training.thoughts import with_thoughts

    # Nothing is drawn: prompts may be as long as their completions leave room for.
    made = make_config(from_python(DEFAULTS), *layers(options, config, set_), {"max_new_tokens": 1})
    if "model" not in made.given():
        raise UsageError("no model was given: --model takes a folder, a hub id, or toy")
    if made.dataset.data is None:
        raise UsageError(
            "no data was given: --data takes pairs of prompt and completion, in any format that train takes"
        )
    free(out)
    display = Display(quiet=quiet)
    if made.machine.threads:
        torch.set_num_threads(made.machine.threads)
    spec = prompt_spec(made)
    source = read_source(made.dataset.data, spec, log=display.log)
    check_source(source, spec)
    policy = load_model(made, made.policy.model, display.log)
    prompts = load_prompts_of_rows(source, policy.renderer, spec)
    if thought_dropout is not None:
        asked = make_config(made.given(), {"max_new_tokens": thought_tokens})
        prompts = with_thoughts(
            asked,
            policy,
            prompts,
            thought=thought_field,
            answer=completion_field,
            dropout=thought_dropout,
            tag=answer_tag,
            where=source.where,
            log=display.log,
        )
    pairs = pairs_of(policy.renderer, prompts, completion_field, source.where)
    log_text(policy.renderer, prompts, display.log, sampled=False)
    display.begin("fine-tuning", made.optimisation.steps)
    done, interrupt = 0, Interrupt(display.log, hung_up=display.hush)

    def report(step: int, values: Mapping[str, float]) -> None:
        nonlocal done
        done = step
        display.step(step, {"loss": values["loss"]})

    with interrupt.watching():
        fine_tune(
            policy,
            pairs,
            steps=made.optimisation.steps,
            batch_size=batch_size,
            lr=made.optimisation.lr,
            seed=made.seed,
            warmup=made.optimisation.warmup,
            schedule=made.optimisation.schedule,
            weight_decay=made.optimisation.weight_decay,
            grad_clip=made.optimisation.grad_clip,
            micro_tokens=made.machine.micro_tokens or MICRO_TOKENS,
            report=report,
            stop=lambda: interrupt.asked,
        )
        display.end()
        with interrupt.shield():
            save_new(out, policy.export)
    display.log(f"the model: {out}")
    if done < made.optimisation.steps:
        log(f"stopped after step {done} of {made.optimisation.steps}; the model so far is {out}")
        raise typer.Exit(130)
