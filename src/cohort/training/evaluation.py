"""Evaluating a model that stands somewhere, and scoring completions that stand in a file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from cohort.data.load import load_rows
from cohort.data.presets import apply_preset
from cohort.data.prompts import check_source, load_prompts, read_source
from cohort.data.rows import Row, columns_of
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.given import GivenModel
from cohort.policies.value import ValueModel
from cohort.rewards.calling import RewardError
from cohort.rewards.composition import compose
from cohort.rewards.grader import RAW, weighted_sum
from cohort.rewards.judges.judges import Judges, JudgeSettings
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from cohort.rollouts.search import Search
from cohort.signals.verification import Rates, rates
from cohort.training.build import make_collector, make_grader, prompt_spec
from cohort.training.checks import check_arguments, check_columns, check_options, log_inapplicable
from cohort.training.config import TrainConfig
from cohort.training.defaults import with_defaults
from cohort.training.episodes import data_of, open_environment
from cohort.training.evaluate import Evaluation, evaluate_prompts, greedy, summarise
from cohort.training.models import load_policy
from cohort.training.opening import log_text
from cohort.training.searching import Searcher, SearchPlan, fit_value

# What a label says.
LABELS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False, "none": None, "": None}
# Bytes of what reward functions print that are shown after an evaluation or a scoring.
PRINTED = 4000


def evaluate_model(
    config: TrainConfig,
    *,
    samples: int,
    limit: int | None = None,
    given: GivenModel | None = None,
    search: SearchPlan | None = None,
    log: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Evaluate the configuration's model on its data with its rewards.

    Args:
        search: answers are found by tree search with a value model; None draws them.

    Raises:
        UsageError: something of it cannot be loaded.
        RewardError: no completion has a reward, so that there is nothing to report.
    """
    from cohort import registry

    config = with_defaults(config)
    check_options(config)
    with contextlib.ExitStack() as stack:
        opened = open_environment(config)
        if opened is not None:
            stack.callback(opened.close)
        names = () if opened is None else opened.names
        grader = make_grader(config, names, log)
        stack.callback(lambda: log_printed(grader.scorer, log))
        stack.callback(grader.scorer.close)
        environments = None if opened is None else opened.factory(grader)
        spec = prompt_spec(config, opened)
        data = config.dataset.data
        if opened is not None:
            data = data_of(data if data is not None else opened.rows(True), opened)
        if data is None:
            raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
        source = read_source(data, spec, seed=config.seed, log=log)
        check_source(source, spec)
        method = registry.method("grpo(kl_beta=0.0)")
        check_columns(method, config, grader, source.rows[:limit], [], own=names)
        check_arguments(method, grader, source, environments=opened is not None)
        policy = load_policy(config, log, given=given)
        prompts = load_prompts(source, policy.renderer, spec, log=log)[:limit]
        check_columns(method, config, grader, [prompt.row for prompt in prompts], [], own=names)
        log_inapplicable(grader, prompts, source, log)
        collector = make_collector(config, policy, grader, environments, log=log)
        log_text(policy.renderer, prompts, log)
        stack.callback(collector.engine.close)
        if search is not None:
            if opened is not None or not isinstance(policy, CausalLM):
                raise UsageError("a tree search goes through answers of one turn: leave --environment or --search out")
            searcher = Searcher(collector, config.seed)
            value = ValueModel(policy)
            if search.data is None:
                value.load(search.value)
            else:
                other = read_source(search.data, spec, seed=config.seed, log=log)
                check_source(other, spec)
                asked = {prompt.text for prompt in prompts}
                known = [p for p in load_prompts(other, policy.renderer, spec, log=log) if p.text not in asked]
                fit_value(searcher, value, known[: search.limit], search, log)
            trees = searcher.trees(prompts, Search(rounds=search.rounds), value, lambda n: progress(n, len(prompts)))
            found = replace(summarise(searcher.answers(prompts, trees), 1), verdict=grader.verdict)
        else:
            found = evaluate_prompts(
                greedy(collector) if samples == 1 else collector,
                prompts,
                samples=samples,
                seed=config.seed,
                progress=lambda n: progress(n, len(prompts)),
            )
        if not any(rollout.scored for rollout in found.rollouts):
            said = f": {grader.failures[0]}" if grader.failures else ": no reward applies to any"
            raise RewardError(f"no completion could be scored, so there is nothing to report{said}")
        return found


def log_printed(scorer: Scorer, log: Callable[[str], None]) -> None:
    """Show the end of what reward functions printed."""
    text = scorer.printed.take(PRINTED).strip()
    if text:
        log(f"reward functions printed:\n{text}")


def labels_of(row: Row, column: str, count: int | None, where: str) -> list[bool | None]:
    """Whether each completion of a row is right; None where that is not known.

    Args:
        count: of the row's completions, where they are a list: so many labels, or one for all.

    Raises:
        UsageError: there is no such column, or what stands there is no label.
    """
    if column not in row:
        raise UsageError(
            f"{where}: there is no column '{column}' (it has {', '.join(row)}): --labels names that of the labels"
        )
    value = row[column]
    listed = list(value) if isinstance(value, list) else [value] * (count or 1)
    if len(listed) != (count or 1):
        raise UsageError(f"{where}: {len(listed)} labels in '{column}' for {count or 1} completions")
    for label in listed:
        if str(label).strip().lower() not in LABELS:
            raise UsageError(
                f"{where}: the label {label!r} in '{column}' is none: write 0 or 1, true or false, or null"
            )
    return [LABELS[str(label).strip().lower()] for label in listed]


def verdict_rates(rows: Sequence[Mapping[str, Any]], names: Sequence[str], at: float = 1.0) -> dict[str, Rates]:
    """How good the verdicts of each reward are by the labels of scored completions, where both are there.

    Args:
        rows: of `score_rows`, with `label`.
        names: of the rewards.
        at: a completion is accepted from this value on.
    """
    out = {}
    for name in names:
        known = [(row["label"], row[name] >= at) for row in rows if row["label"] is not None and row[name] is not None]
        out[name] = rates([label for label, _ in known], [accepted for _, accepted in known])
    return out


def score_rows(
    data: str,
    *,
    completion_field: str,
    reward: list[str],
    gates: Sequence[str] = (),
    clips: Sequence[str] = (),
    schedules: Sequence[str] = (),
    step: int | None = None,
    prompt_field: str | None = None,
    answer_field: str | None = None,
    label_field: str | None = None,
    timeout: float = 60.0,
    on_error: str = "stop",
    process: Literal["worker", "here"] = "worker",
    workers: int = 1,
    judging: JudgeSettings | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """One object for every completion of a file: row (of a text file its line), sample, what was logged, every component, and
    the weighted sum. A reward is None where it does not apply, or could not score the completion and `on_error` is
    "skip". With gates, clips or schedules a component is what counts of it, `raw/NAME` what its function gave, and
    `weight/NAME` its weight.

    A row's completion is a text, a list of messages, or a list of texts (several completions).

    Args:
        step: steps completed, for weights that change; None is the end of what they go through.
        label_field: column that says whether a completion is right, which no reward is given; it becomes `label`.

    Raises:
        UsageError: a row without the column, a completion that is no text, or a label that is none.
    """
    specs = parse(reward)
    named = {spec.name: spec.weight for spec in specs}
    composition = compose(named, gates=gates, clips=clips, schedules=schedules)
    weights = {name: composition.weight(name, weight, step) for name, weight in named.items()}
    rows, _ = apply_preset(load_rows(data))
    batch: list[tuple[int, Any, Row]] = []
    labels: list[bool | None] = []
    for row in rows:
        row, where = row.replace({}), f"{data}, {row.place}"
        for name, source in (("prompt", prompt_field), ("answer", answer_field)):
            if source is not None:
                if source not in row:
                    raise UsageError(f"{where}: there is no column '{source}' (it has {', '.join(row)})")
                row[name] = row[source]
        if completion_field not in row:
            raise UsageError(
                f"{where}: there is no column '{completion_field}' (it has {', '.join(row)}); name the one that "
                "holds the completions with --completion-field"
            )
        value = row[completion_field]
        several = isinstance(value, list) and not (value and isinstance(value[0], dict))
        for k, completion in enumerate(value if several else [value]):
            if not isinstance(completion, (str, list)):
                raise UsageError(f"{where}: a completion must be a text or messages, not {completion!r}")
            batch.append((k, completion, row))
        if label_field is not None:
            labels += labels_of(row, label_field, len(value) if several else None, where)
    if not batch:
        raise UsageError(f"{data}: no row has a completion in '{completion_field}'")
    each_once = list({row.place: row for *_, row in batch}.values())
    for spec in specs:
        spec.check_rows([(f"{data}, {row.place}", row) for row in each_once])
    columns = columns_of([row for *_, row in batch])
    del columns[completion_field]
    columns.pop(label_field or "", None)
    judges = Judges(judging, without_policy="nothing is drawn here, so there is no policy that could judge", log=log)
    scorer = Scorer(specs, timeout=timeout, on_error=on_error, process=process, judges=judges, workers=workers)
    try:
        scorer.check_arguments(list(columns))
        for text in (text for spec in specs for text in spec.inapplicable(each_once, data)):
            log(text)
        prompts = [row.get("prompt") for *_, row in batch]
        places = [f"{data}, {row.place}" for *_, row in batch]
        scores = scorer.grade(prompts, [completion for _, completion, _ in batch], None, columns, where=places)
    finally:
        scorer.close()
        log_printed(scorer, log)
    for message in scores.messages:
        log(message)
    for name, values in scores.metrics.items():
        log(f"{name} {sum(values) / len(values):.4g}")
    if spent := judges.ledger.metrics():
        log(f"judges were asked {spent['judge/calls']:.0f} questions, for {spent['judge/tokens']:.0f} tokens")
    for at, (k, _, row) in enumerate(batch):
        raw = {name: values[at] for name, values in scores.components.items()}
        components, _ = composition.counted(raw)
        total = weighted_sum(weights.values(), components.values())
        failed = on_error == "skip" and at in scores.failed
        known = None if failed or math.isnan(total) else total
        logged = {name: values[at] for name, values in scores.extra.items()}
        label = {"label": labels[at]} if label_field is not None else {}
        each = {"row": int(row.place.split()[1]), "sample": k, **label, "reward": known, **components}
        if composition:
            each |= {RAW + name: value for name, value in raw.items()}
            each |= {f"weight/{name}": weight for name, weight in weights.items()}
        yield {**logged, **each}
