"""A data set made larger before training: a language model rewrites every question, and the answers stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cohort.data.prompts import Source, check_source, load_prompts, prompt_id, read_source, source_of, template_of
from cohort.data.rows import place_of
from cohort.errors import UsageError
from cohort.policies.given import GivenModel
from cohort.rewards.judges.judges import Judges
from cohort.rewards.judges.reply import Unreachable
from cohort.signals.questions import question, with_question
from cohort.signals.rewriting import ASPECTS, rewritten, task
from cohort.training.asking import asking
from cohort.training.build import prompt_spec
from cohort.training.checks import check_options
from cohort.training.config import TrainConfig
from cohort.training.defaults import with_defaults
from cohort.training.models import load_policy
from cohort.training.opening import log_text
from cohort.types import Prompt

# (texts, number of the attempt, from 0) -> what the model says to each; None where it says nothing.
Ask = Callable[[Sequence[str], int], Sequence[str | None]]
# Prompts that are rewritten together, and how often one is tried.
CHUNK, ATTEMPTS = 64, 3


def rewrite_rows(
    config: TrainConfig,
    *,
    aspects: Sequence[str] = tuple(ASPECTS),
    limit: int | None = None,
    given: GivenModel | None = None,
    log: Callable[[str], None] = lambda _: None,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """The rows of the configuration's data, each followed by its rewritten ones, by the configuration's model: one that is
    loaded, or a server's that speaks the interface of OpenAI's, named by its URL.

    A row has its own columns, `prompt` with the whole question (a template is filled in), and `aspect`: "original" or one of
    `ASPECTS`. A question that is not rewritten in three attempts is left out.

    Args:
        aspects: how each question is rewritten.
        limit: most prompts to use.
        keep: called with all rows so far, after every chunk of prompts.

    Raises:
        UsageError: something cannot be loaded, or a row has no answer, so that nothing says what is to stay.
    """
    unknown = [name for name in aspects if name not in ASPECTS]
    if unknown or not aspects:
        what = f"there is no aspect {unknown[0]!r}" if unknown else "no aspect was given"
        raise UsageError(f"{what}: take some of {', '.join(ASPECTS)}")
    config = with_defaults(config)
    check_options(config)
    if config.dataset.data is None:
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    spec = prompt_spec(config)
    source = read_source(config.dataset.data, spec, seed=config.seed, log=log)
    check_source(source, spec)
    for row in source.rows[:limit]:
        if row.get("answer") in (None, ""):
            raise UsageError(
                f"{source.where}, {place_of(row)} has no answer (it has: {', '.join(row)}), so that nothing says what is to "
                "stay when its question is rewritten: name its column with --answer-field"
            )
    with _model(config, source, given, log, limit) as (prompts, ask):
        rows: list[dict[str, Any]] = []
        for start in range(0, len(prompts), CHUNK):
            chunk = prompts[start : start + CHUNK]
            found: dict[tuple[int, str], str] = {}
            for attempt in range(ATTEMPTS):
                open_ = [(i, name) for i in range(len(chunk)) for name in aspects if (i, name) not in found]
                asked = [task(name, question(chunk[i]), str(chunk[i].row["answer"])) for i, name in open_]
                for (i, name), said in zip(open_, ask(asked, attempt) if asked else [], strict=True):
                    text = rewritten(said or "", question(chunk[i]))
                    if text is not None:
                        found[i, name] = text
            for i, prompt in enumerate(chunk):
                rows.append({**prompt.row, "prompt": prompt.source, "aspect": "original"})
                texts = [(name, found[i, name]) for name in aspects if (i, name) in found]
                rows += [{**prompt.row, "prompt": with_question(prompt, text), "aspect": name} for name, text in texts]
            keep(rows)
        made, wanted = len(rows) - len(prompts), len(prompts) * len(aspects)
        log(f"{made} of {wanted} questions were rewritten; with the {len(prompts)} they were made of, {len(rows)} rows")
    return rows


@contextmanager
def _model(
    config: TrainConfig, source: Source, given: GivenModel | None, log: Callable[[str], None], limit: int | None
) -> Iterator[tuple[list[Prompt], Ask]]:
    """The prompts, and what asks the model."""
    spec = prompt_spec(config)
    if "://" in config.policy.model:
        # A server renders what it is asked, and has no use for tokens.
        template, found = template_of(spec.template), dict[str, Prompt]()
        for row in source.rows:
            asked = source_of(row, template, f"{source.where}, {place_of(row)}")
            text = asked if isinstance(asked, str) else json.dumps(asked)
            found.setdefault(text, Prompt(prompt_id(text), text, (), asked, row))
        yield list(found.values())[:limit], _asking_server(config, log)
        return
    policy = load_policy(config, log, given=given)
    prompts = load_prompts(source, policy.renderer, spec, log=log)[:limit]
    with asking(config, policy, "rewrite", log=log) as ask:
        log_text(policy.renderer, prompts, log)
        yield prompts, lambda texts, attempt: ask(list(texts))


def _asking_server(config: TrainConfig, log: Callable[[str], None]) -> Ask:
    """What asks a server, within the limits of judges; what it did not answer is said once.

    Raises:
        UsageError: there is no such server; later, where it is gone for good.
    """
    how = replace(config.rewards.judging, reply=config.sampling.max_new_tokens, on_spent="skip")
    judges, told = Judges(how, log=log), set[str]()
    judges.check(config.policy.model)

    def ask(texts: Sequence[str], attempt: int) -> list[str | None]:
        try:
            heat, samples = float(config.sampling.temperature), [attempt] * len(texts)
            replies = judges.ask(config.policy.model, list(texts), temperature=heat, samples=samples)
        except Unreachable as error:
            raise UsageError(f"{config.policy.model}: {error}") from error
        for reply in replies:
            why = judges.ledger.spent or "the budget is spent" if reply.spent else reply.error
            if why and why not in told:
                told.add(why)
                log(f"not all questions were answered: {why}")
        return [None if reply.spent or reply.error else reply.text for reply in replies]

    return ask
