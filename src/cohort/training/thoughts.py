"""Data for supervised training of a model that may leave out its thought: thought and answer in tags, some thoughts empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from cohort.data.rows import Row, place_of
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.seeds import generator
from cohort.signals.answers import is_missing
from cohort.signals.questions import question, with_question
from cohort.signals.thoughts import ASK, with_dropout
from cohort.training.asking import asking
from cohort.training.config import TrainConfig
from cohort.types import Prompt

# How many thoughts are asked for together.
CHUNK = 64


def with_thoughts(
    config: TrainConfig,
    policy: CausalLM,
    prompts: Sequence[Prompt],
    *,
    thought: str,
    answer: str,
    dropout: float,
    tag: str,
    where: str = "data",
    log: Callable[[str], None] = lambda _: None,
) -> list[Prompt]:
    """Prompts whose rows have <think>thought</think><tag>answer</tag> in the column `answer`, each with an empty thought with
    the probability `dropout`, which the configuration's seed decides.

    A row that lacks a thought gets one that the policy writes, shown the answer: up to the configuration's `max_new_tokens`.

    Args:
        thought, answer: names of columns.
        where: what to call the data in messages.

    Raises:
        UsageError: a row has no answer.
    """
    for prompt in prompts:
        if is_missing(prompt.row.get(answer)):
            raise UsageError(
                f"{where}, {place_of(prompt.row)}: there is no answer in column '{answer}' (it has: {', '.join(prompt.row)}); "
                "name it with --completion-field"
            )
    answers = [str(prompt.row[answer]) for prompt in prompts]
    given = [prompt.row.get(thought) for prompt in prompts]
    uniform = torch.rand(len(prompts), generator=generator(config.seed, "thought dropout"), dtype=torch.float64)
    # A thought that is left out need not be written.
    missing = [i for i, text in enumerate(given) if is_missing(text) and float(uniform[i]) >= dropout]
    texts = ["" if is_missing(text) else str(text) for text in given]
    if missing:
        log(f"{len(missing)} of {len(prompts)} rows have no thought in column '{thought}': the model writes it")
        with asking(config, policy, "thoughts", log=log) as ask:
            for start in range(0, len(missing), CHUNK):
                rows = missing[start : start + CHUNK]
                asked = [ASK.format(question=question(prompts[i]), answer=answers[i]) for i in rows]
                said = ask([with_question(prompts[i], text) for i, text in zip(rows, asked, strict=True)])
                for i, text in zip(rows, said, strict=True):
                    texts[i] = text.strip()
    made, dropped = with_dropout(texts, answers, uniform, dropout=dropout, tag=tag)
    log(f"{sum(dropped)} of {len(made)} thoughts are left out")
    return [replace(prompt, row=_with(prompt.row, answer, text)) for prompt, text in zip(prompts, made, strict=True)]


def _with(row: object, column: str, text: str) -> Row:
    assert isinstance(row, Row)
    return row.replace({column: text})
