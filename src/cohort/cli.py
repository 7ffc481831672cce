"""The command `cohort`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

import cohort
from cohort.errors import UsageError

app = typer.Typer(
    name="cohort",
    help="Reinforcement-learning post-training with GRPO and its published variants.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any configuration key; may be repeated.")
]
RewardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="R",
        help="exact, number, math, task, format:REGEX, length[:N], or file.py:function; WEIGHT*R weighs it. May be repeated.",
    ),
]


TokensOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="End each run once it has sampled N tokens (or made its steps), for equal budgets."
    ),
]
EvalOption = Annotated[
    str | None, typer.Option(help="Problems to measure on; without it a fifth of the data is held out.")
]
SamplesOption = Annotated[
    int, typer.Option(min=0, metavar="K", help="Completions of each evaluation problem; 0 measures none.")
]
TransferOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=DATA", help="Further data to measure on. May be repeated.")
]
TargetOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Accuracy to count tokens until; default: one that all methods reach."),
]


def _version(asked: bool) -> None:
    if asked:
        print(f"cohort {cohort.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _layer(**values: Any) -> dict[str, Any]:
    """Options that were given, as configuration keys."""
    return {key: value for key, value in values.items() if value is not None}


@app.command()
def train(
    method: Annotated[
        str | None, typer.Argument(metavar="[METHODS]", help="As in grpo, dapo+gdpo or ngrpo(clip_high=0.3).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model folder, hub id, or nursery (default).")] = None,
    data: Annotated[
        str | None, typer.Option(help=".jsonl, .json, .csv, .parquet, hub id, or reasoning_gym:TASK?...")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="Completions to learn from instead: rows with chosen and rejected, or completion and label."),
    ] = None,
    reward: RewardOption = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    prompts_per_step: Annotated[int | None, typer.Option(help="Prompts drawn each step.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Rollouts of each prompt.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of a rollout.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    min_new_tokens: Annotated[int | None, typer.Option(help="Tokens before which nothing ends a rollout.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends a rollout. Repeatable.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same run.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16.")] = None,
    lora: Annotated[int | None, typer.Option(metavar="RANK", help="Train low-rank adapters.")] = None,
    engine: Annotated[str | None, typer.Option(help="native (embedded) or vllm.")] = None,
    engine_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A vLLM server; without it vLLM runs in this process.")
    ] = None,
    micro_tokens: Annotated[int | None, typer.Option(help="Most tokens in one pass with gradient.")] = None,
    activations: Annotated[
        str | None, typer.Option(metavar="HOW", help="Kept for the backward pass: keep (all), checkpoint or stream.")
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the model's layers for the update.")
    ] = None,
    prompt_field: Annotated[str | None, typer.Option(help="Column to use as the prompt.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Column to use as the answer.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with the row's fields in braces, or a file with it.")
    ] = None,
    eval_data: Annotated[str | None, typer.Option(help="Held-out data.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    bos: Annotated[
        bool | None, typer.Option("--bos", help="Begin prompts with the beginning-of-sequence token.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = None,
    on_reward_error: Annotated[str | None, typer.Option(help="stop, zero or skip.")] = None,
    record: Annotated[
        str | None,
        typer.Option(help="Of each step: none, rollouts, sampled (and some groups' tokens; default), or tokens (all)."),
    ] = None,
    wandb: Annotated[str | None, typer.Option(metavar="PROJECT", help="Log to Weights & Biases too.")] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the run.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file (YAML).")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in its folder, if there is one.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Post-train a model. Without arguments: the embedded model on an arithmetic task, in about two minutes."""
    from cohort.training.config import make_config, parse_set, read_config
    from cohort.training.display import Display
    from cohort.training.train import train as run

    options = _layer(
        method=method, model=model, data=data, pairs=pairs, reward=reward or None, steps=steps,
        prompts_per_step=prompts_per_step, group_size=group_size, max_new_tokens=max_new_tokens,
        temperature=temperature, top_p=top_p, min_new_tokens=min_new_tokens, stop=stop or None, lr=lr, seed=seed,
        device=device, dtype=dtype, lora=lora,
        engine=engine, engine_url=engine_url, micro_tokens=micro_tokens, activations=activations, compile=compile_,
        prompt_field=prompt_field,
        answer_field=answer_field, system=system, template=template, eval_data=eval_data, eval_every=eval_every,
        bos=bos, trust_remote_code=trust_remote_code, on_reward_error=on_reward_error, record=record, wandb=wandb, out=out,
    )  # fmt: skip
    made = make_config(read_config(config) if config else {}, options, parse_set(set_ or []))
    result = run(made, resume=resume, display=Display(quiet=quiet))
    if result.stopped:
        _say(
            f"stopped after step {result.summary['steps']}; continue with the same command and --resume --out {result.folder}"
        )
        raise typer.Exit(130)
    if not quiet:
        _farewell(result, made)


def _farewell(result: Any, config: Any) -> None:
    summary = result.summary
    print()
    if "accuracy_before" in summary:
        problems = summary["evaluation_after"]["problems"]
        print(
            f"accuracy on {problems} unseen problems: {summary['accuracy_before']:.1%} before, "
            f"{summary['accuracy_after']:.1%} after"
        )
    print(f"{summary['steps']} steps, {summary['sampled_tokens']} tokens sampled, {summary['seconds']:.0f} s")
    print(f"the run: {result.folder}")
    kind = "adapter" if config.lora else "model"
    print(f"the {kind}: {result.model}")
    steps = {
        f"cohort view {result.folder}": "curves, rollouts and tokens, in the browser",
        f"cohort explain '{config.method}'": "what the method does at each step",
        "cohort train dapo+gdpo --model YOUR_MODEL --data YOUR.jsonl --reward math": "your model, your data",
    }
    if config.lora:
        steps = {f"cohort merge {result.model} --out {result.folder}/merged": "a whole model of the adapter", **steps}
    elif config.data is not None or config.eval_data is not None or config.pairs is None:
        command = f"cohort eval {result.model} --config {result.folder}/config.yaml --samples 8"
        steps = {command: "pass@k and maj@k", **steps}
    print("what next:")
    for command, what in steps.items():
        print(f"  {what}:\n    {command}")


@app.command()
def sft(
    model: Annotated[str, typer.Option(help="Model folder, hub id, or nursery.")],
    data: Annotated[str, typer.Option(help="Pairs of prompt and completion, in any format that train takes.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model is written.")],
    completion_field: Annotated[str, typer.Option(help="Column with the completion.")] = "completion",
    prompt_field: Annotated[str | None, typer.Option(help="Column to use as the prompt.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with the row's fields in braces, or a file with it.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")] = 10,
    schedule: Annotated[str, typer.Option(help="constant or cosine.")] = "cosine",
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    lora: Annotated[int, typer.Option(metavar="RANK", help="Train low-rank adapters.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    micro_tokens: Annotated[int, typer.Option(help="Most padded tokens in one pass.")] = 16384,
    activations: Annotated[
        str, typer.Option(metavar="HOW", help="Kept for the backward pass: keep (all), checkpoint or stream.")
    ] = "keep",
    bos: Annotated[bool, typer.Option("--bos", help="Begin prompts with the beginning-of-sequence token.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Fine-tune a model on pairs of prompt and completion."""
    from cohort.data.prompts import load_prompts
    from cohort.training.config import make_config
    from cohort.training.display import Display
    from cohort.training.setup import load_policy, prompt_spec
    from cohort.training.sft import fine_tune, pairs_of

    _free(out)
    if schedule not in ("constant", "cosine"):
        raise UsageError(f"--schedule {schedule}: it is constant or cosine")
    display = Display(quiet=quiet)
    config = make_config(
        _layer(
            model=model, data=data, prompt_field=prompt_field, system=system, template=template, seed=seed, lora=lora,
            device=device, dtype=dtype, bos=bos, trust_remote_code=trust_remote_code, max_new_tokens=1,
            activations=activations,
        )
    )  # fmt: skip
    policy = load_policy(config, display.say)
    pairs = pairs_of(policy, load_prompts(data, policy, prompt_spec(config), say=display.say), completion_field)
    display.begin("fine-tuning", steps)
    fine_tune(
        policy, pairs, steps=steps, batch_size=batch_size, lr=lr, seed=seed, warmup=warmup, schedule=schedule,
        micro_tokens=micro_tokens, report=lambda step, values: display.step(step, {"loss": values["loss"]}),
    )  # fmt: skip
    display.end()
    policy.save(out)
    display.say(f"the model: {out}")


@app.command(name="eval")
def eval_(
    model: Annotated[str, typer.Argument(help="Model folder, hub id, or nursery.")],
    data: Annotated[str | None, typer.Option(help="Data, in any format that train takes.")] = None,
    reward: RewardOption = None,
    samples: Annotated[int, typer.Option(min=1, metavar="K", help="Completions of each prompt; one is greedy.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts to use.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of a completion.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, where K is more than one.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    min_new_tokens: Annotated[int | None, typer.Option(help="Tokens before which nothing ends a completion.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends a completion. Repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same completions.")] = None,
    prompt_field: Annotated[str | None, typer.Option(help="Column to use as the prompt.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Column to use as the answer.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with the row's fields in braces, or a file with it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16.")] = None,
    bos: Annotated[
        bool | None, typer.Option("--bos", help="Begin prompts with the beginning-of-sequence token.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration of a run; its held-out data is used.")
    ] = None,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model: pass@1, pass@k, maj@k, length, truncation, each with a bootstrap 95 % interval over problems."""
    from cohort.training.config import make_config, parse_set, read_config
    from cohort.training.evaluation import evaluate_model

    stored = read_config(config) if config else {}
    if stored.get("eval_data"):
        stored["data"], limit = stored["eval_data"], limit or stored.get("eval_size")
    for key in [*(k for k in stored if k.startswith("engine")), "eval_data", "out", "lora", "pairs", "activations"]:
        stored.pop(key, None)
    options = _layer(
        model=model, data=data, reward=reward or None, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
        min_new_tokens=min_new_tokens, stop=stop or None, seed=seed, prompt_field=prompt_field, answer_field=answer_field,
        system=system, template=template, device=device, dtype=dtype, bos=bos, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    made = make_config(stored, options, parse_set(set_ or []))
    if made.data is None and model != "nursery":
        raise UsageError(
            "no data was given: --data takes a file, a hub id or reasoning_gym:TASK?..., --config a run's configuration"
        )
    result = evaluate_model(made, samples=samples, limit=limit, say=_say)
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


@app.command()
def score(
    data: Annotated[str, typer.Option(help="File with completions.")],
    reward: Annotated[list[str], typer.Option("--reward", metavar="R", help="As in train.")],
    completion_field: Annotated[str, typer.Option(help="Column with a text, or a list of texts.")] = "completion",
    prompt_field: Annotated[str | None, typer.Option(help="Column to use as the prompt.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Column to use as the answer.")] = None,
    on_reward_error: Annotated[str, typer.Option(help="stop, zero or skip.")] = "stop",
    reward_timeout: Annotated[float, typer.Option(help="Seconds that a reward function may take.")] = 60.0,
    json_out: Annotated[
        Path | None, typer.Option("--json", metavar="OUT.jsonl", help="Write there instead of printing.")
    ] = None,
) -> None:
    """Apply rewards to completions that stand in a file; one object a completion, with every component."""
    from cohort.training.evaluation import score_rows

    if json_out is not None and (json_out.is_dir() or not json_out.resolve().parent.is_dir()):
        raise UsageError(f"--json {json_out}: name a file in a folder that exists")
    rows = list(
        score_rows(
            data, completion_field=completion_field, reward=reward, prompt_field=prompt_field, answer_field=answer_field,
            timeout=reward_timeout, on_error=on_reward_error,
        )
    )  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if json_out is not None:
        json_out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    names = [k for k in rows[0] if k not in ("row", "sample")]
    means = ((k, [row[k] for row in rows if row[k] is not None]) for k in names)
    _say(f"{len(rows)} completions; mean " + ", ".join(f"{k} {sum(v) / len(v):.4g}" for k, v in means if v))


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the methods: name, paper, axes they fill, and how exact their specification is."""
    from cohort.explain import overview

    rows = overview()
    if as_json:
        print(json.dumps(rows))
        return
    console = Console() if sys.stdout.isatty() else Console(width=140)
    # On paper and in narrow windows a line a method; cells that wrap would be harder to read than no table.
    wide = console.width >= 160
    table = Table("method", "paper", "axes", "specification", *(["idea"] if wide else []), box=box.SIMPLE)
    for row in rows:
        lacks = f" (needs: {row['lacks']})" if row["lacks"] else ""
        idea = [row["idea"]] if wide else []
        table.add_row(row["name"] + lacks, row["paper"].replace("arXiv:", ""), row["axes"], row["confidence"], *idea)
    console.print(table)


@app.command()
def explain(method: Annotated[str, typer.Argument(metavar="METHODS", help="As in dapo+gdpo.")]) -> None:
    """Say what a method does at each axis: equations, defaults, sources, and what it costs."""
    from cohort.explain import explain as text

    print(text(method))


@app.command()
def view(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Folders of runs, or folders with runs; else runs/.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.  [default: 8642 or the next]")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but the loopback lets the network read.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Show runs in the browser: live curves, rollouts, and every token of them. Stops with Ctrl-C."""
    from cohort.insight.viewer.server import view as show

    show(runs or [], host=host, port=port, browser=not no_browser, say=_say)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter, such as a run's final/.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the whole model is written.")],
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
) -> None:
    """Make a whole model of a LoRA adapter and the model it was trained on."""
    from cohort.policies.causal_lm import merge_adapter

    _free(out)
    merge_adapter(adapter, out, trust_remote_code=trust_remote_code)
    _say(f"the model: {out}")


@app.command()
def doctor(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Folder of a run, finished or going on.")] = None,
    data: Annotated[str | None, typer.Option(help="Look at data instead, in any format that train takes.")] = None,
    reward: RewardOption = None,
    model: Annotated[str | None, typer.Option(help="With --data: model whose context the prompts must fit.")] = None,
    eval_data: Annotated[str | None, typer.Option(help="With --data: held-out data.")] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0, metavar="K", help="With --model: draw K completions of some prompts, to see which are solved."
        ),
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, help="With --reward: most rows whose answers are scored.")] = 300,
    prompt_field: Annotated[str | None, typer.Option(help="Column to use as the prompt.")] = None,
    answer_field: Annotated[str | None, typer.Option(help="Column to use as the answer.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with the row's fields in braces, or a file with it.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of a completion.")] = None,
    set_: Set = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if there is an alarm.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is wrong with a run, or with data and rewards before any: what, where, what it means, what to try.

    The exit status is 0 whatever is found, unless --strict is given.
    """
    from cohort.insight.doctor.examine import examine
    from cohort.insight.doctor.show import show
    from cohort.insight.store import open_run

    options = _layer(
        data=data, reward=reward or None, model=model, eval_data=eval_data, prompt_field=prompt_field,
        answer_field=answer_field, system=system, template=template, max_new_tokens=max_new_tokens,
    )  # fmt: skip
    if run is not None:
        if options or set_ or samples:
            raise UsageError("name either a run or --data: a run brings its own data and rewards")
        named = Path("runs") / run
        report = examine(open_run(named if not Path(run).exists() and named.is_dir() else run))
    else:
        from cohort.insight.doctor.dataset import examine_data
        from cohort.training.config import make_config, parse_set

        if data is None and model is None:
            raise UsageError("name a run's folder, or data to look at with --data (and --reward, --model, --eval-data)")
        report = examine_data(make_config(options, parse_set(set_ or [])), samples=samples, limit=limit, say=_say)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        show(report, Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120))
    if strict and any(finding.severity == "alarm" for finding in report.findings):
        raise typer.Exit(1)


@app.command()
def compare(
    what: Annotated[
        list[str], typer.Argument(metavar="METHOD METHOD... | RUN RUN...", help="Methods to run, or folders of runs.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method; the first seed is 0.")] = 5,
    steps: Annotated[int | None, typer.Option(help="Training steps of a run.  [default: 40]")] = None,
    tokens: TokensOption = None,
    model: Annotated[str | None, typer.Option(help="Model folder, hub id, or nursery (default).")] = None,
    data: Annotated[str | None, typer.Option(help="Data to train on, in any format that train takes.")] = None,
    eval_data: EvalOption = None,
    reward: RewardOption = None,
    samples: SamplesOption = 16,
    transfer: TransferOption = None,
    target: TargetOption = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file (YAML).")] = None,
    set_: Set = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the comparison.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Compare methods fairly: same model, prompts, problems and seeds; or compare finished runs.

    The same command goes on after an interruption. The report is one HTML page; the tables beside it are CSV and JSON.
    """
    from cohort.insight.compare import compare as run
    from cohort.insight.compare import parse_transfer
    from cohort.training.display import Display

    options = _shared(config, set_, model=model, data=data, eval_data=eval_data, reward=reward or None, steps=steps)
    found = run(
        what, options=options, seeds=seeds, tokens=tokens, samples=samples, transfer=parse_transfer(transfer or []),
        target=target, out=out, display=Display(quiet=quiet),
    )  # fmt: skip
    _compared(found, quiet)


@app.command()
def sweep(
    method: Annotated[str, typer.Argument(help="A method or composition, as in grpo or dapo+gdpo.")],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2",
            help="Values of a hyperparameter or configuration key, or a range LOW..HIGH, LOW..HIGH:log. May be repeated.",
        ),
    ],
    random: Annotated[
        int | None, typer.Option(metavar="N", help="Draw N settings at random; without it, every combination is run.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each setting; the first seed is 0.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Training steps of a run.  [default: 40]")] = None,
    tokens: TokensOption = None,
    model: Annotated[str | None, typer.Option(help="Model folder, hub id, or nursery (default).")] = None,
    data: Annotated[str | None, typer.Option(help="Data to train on, in any format that train takes.")] = None,
    eval_data: EvalOption = None,
    reward: RewardOption = None,
    samples: SamplesOption = 16,
    transfer: TransferOption = None,
    target: TargetOption = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration file (YAML).")] = None,
    set_: Set = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the sweep.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Compare settings of one method, as a grid or drawn at random, the way compare does methods."""
    from cohort.insight.compare import parse_transfer
    from cohort.insight.sweep import parse_axis
    from cohort.insight.sweep import sweep as run
    from cohort.training.display import Display

    options = _shared(config, set_, model=model, data=data, eval_data=eval_data, reward=reward or None, steps=steps)
    found = run(
        method, [parse_axis(text) for text in grid], draws=random, options=options, seeds=seeds, tokens=tokens,
        samples=samples, transfer=parse_transfer(transfer or []), target=target, out=out, display=Display(quiet=quiet),
    )  # fmt: skip
    _compared(found, quiet)


def _shared(config: Path | None, set_: list[str] | None, **options: Any) -> dict[str, Any]:
    """Keys that the runs of a comparison share."""
    from cohort.training.config import parse_set, read_config

    stored = read_config(config) if config else {}
    for key in ("method", "seed", "out"):
        stored.pop(key, None)
    return {**stored, **_layer(**options), **parse_set(set_ or [])}


def _compared(found: Any, quiet: bool) -> None:
    from cohort.insight.summary import show

    if not quiet:
        show(found, Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120))
    if found.stopped:
        raise typer.Exit(130)
    if found.failures:
        raise typer.Exit(1)


def _free(folder: Path) -> None:
    """Nothing stands where a model is to be written."""
    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise UsageError(f"{folder} already holds something: name another folder with --out")


def _say(text: str) -> None:
    err.print(text, markup=False)


def main() -> None:
    """Run the command; errors that a user can mend are printed without a traceback, with status 2."""
    try:
        app()
    except UsageError as error:
        err.print(f"cohort: {error}", markup=False)
        sys.exit(2)
    except Exception as error:
        # Named here rather than imported: their modules need torch.
        if type(error).__name__ in ("RewardError", "EngineError", "Diverged"):
            err.print(f"cohort: {error}", markup=False)
            sys.exit(3)
        raise


if __name__ == "__main__":
    main()
