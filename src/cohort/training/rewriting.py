"""A data set made larger before training: a language model rewrites every question, and the answers stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cohort.data.prompts import check_source, load_prompts, read_source
from cohort.data.rows import place_of
from cohort.errors import UsageError
from cohort.policies.given import GivenModel
from cohort.signals.questions import question, with_question
from cohort.signals.rewriting import ASPECTS, rewritten, task
from cohort.training.asking import asking
from cohort.training.build import prompt_spec
from cohort.training.checks import check_options
from cohort.training.config import TrainConfig
from cohort.training.defaults import with_defaults
from cohort.training.models import load_policy
from cohort.training.opening import log_text

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
    """The rows of the configuration's data, each followed by its rewritten ones, by the configuration's model.

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
    policy = load_policy(config, log, given=given)
    prompts = load_prompts(source, policy.renderer, spec, log=log)[:limit]
    with asking(config, policy, "rewrite", log=log) as ask:
        log_text(policy.renderer, prompts, log)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(prompts), CHUNK):
            chunk = prompts[start : start + CHUNK]
            found: dict[tuple[int, str], str] = {}
            for _ in range(ATTEMPTS):
                open_ = [(i, name) for i in range(len(chunk)) for name in aspects if (i, name) not in found]
                asked = [task(name, question(chunk[i]), str(chunk[i].row["answer"])) for i, name in open_]
                for (i, name), said in zip(open_, ask(asked) if asked else [], strict=True):
                    text = rewritten(said, question(chunk[i]))
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
