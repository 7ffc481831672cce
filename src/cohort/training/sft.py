"""Supervised fine-tuning on pairs of prompt and completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from cohort.data.pairs import written_text
from cohort.data.prompts import PromptSpec, Source, make_prompt, template_of
from cohort.data.rows import place_of
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.seeds import generator
from cohort.training.precision import MasterWeights
from cohort.training.schedule import factor
from cohort.types import Prompt
from cohort.types.policy import Renderer

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def completion_tokens(renderer: Renderer, text: str, prompt: Prompt | None = None) -> tuple[int, ...]:
    """Token ids of a completion behind a prompt (None: behind any text), ended as the policy's completions are."""
    return renderer.encode_completion(prompt, text, end=True)


def load_prompts_of_rows(source: Source, renderer: Renderer, spec: PromptSpec) -> list[Prompt]:
    """The prompt of every row of a data set: one that several completions follow comes as often.

    Raises:
        UsageError: a row whose prompt the policy cannot take.
    """
    template = template_of(spec.template)
    return [make_prompt(row, renderer, spec, template, f"{source.where}, {row.place}") for row in source.rows]


def pairs_of(renderer: Renderer, prompts: Sequence[Prompt], field: str, where: str = "data") -> list[Pair]:
    """(context, completion) token ids of prompts whose rows have their completion in a column.

    A completion is a text, or messages of which the last one is the assistant's.

    Args:
        where: what to call the data in messages.

    Raises:
        UsageError: a row has no such column, no text in it, or is longer than the policy's context.
    """
    out = []
    for prompt in prompts:
        row = f"{where}, {place_of(prompt.row)}"
        if prompt.row.get(field) is None:
            raise UsageError(
                f"{row}: there is no text in column '{field}' (it has: {', '.join(prompt.row)}); name the completion's "
                "column with --completion-field"
            )
        text = written_text(prompt.row, field, row)
        try:
            completion = completion_tokens(renderer, text, prompt)
        except UsageError as error:
            raise UsageError(f"{row}, '{field}': {error}") from error
        total = len(prompt.tokens) + len(completion)
        if renderer.context_length is not None and total > renderer.context_length:
            raise UsageError(
                f"{row}: prompt and completion have {total} tokens together, which exceeds the model's context of "
                f"{renderer.context_length}: shorten them, or leave the row out"
            )
        out.append((prompt.tokens, completion))
    return out


def fine_tune(
    policy: CausalLM,
    pairs: Sequence[Pair],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int = 0,
    warmup: int = 0,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    grad_clip: float = 1.0,
    micro_tokens: int = 16384,
    report: Callable[[int, Mapping[str, float]], None] = lambda step, values: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Minimise the mean negative log-likelihood of the completions' tokens.

    Args:
        pairs: (context, completion) token ids.
        batch_size: pairs a step, drawn epoch by epoch in an order that the seed fixes.
        report: called after each step with its number and `loss`, `tokens`.
        stop: called before each step; True ends the training.
    """
    make = partial(torch.optim.AdamW, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    optimizer = MasterWeights(policy.trainable(), make)
    rng = generator(seed, "sft")
    order: list[int] = []
    for step in range(1, steps + 1):
        if stop():
            return
        while len(order) < batch_size:
            order += torch.randperm(len(pairs), generator=rng).tolist()
        chosen, order = [pairs[i] for i in order[:batch_size]], order[batch_size:]
        sequences = Sequences(
            tuple(torch.tensor(context) for context, _ in chosen), tuple(torch.tensor(done) for _, done in chosen)
        )
        tokens = sum(len(done) for _, done in chosen)
        width = max(len(done) for _, done in chosen)
        total = 0.0
        for rows in sequences.micro_batches(micro_tokens):
            loss = -policy.log_probs(sequences.select(rows), width=width)["logp"].sum() / tokens
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(optimizer.params, grad_clip)
        optimizer.set_lr(lr * factor(step, steps, warmup=warmup, schedule=schedule))
        optimizer.step()
        optimizer.zero_grad()
        report(step, {"loss": total, "tokens": float(sum(sequences.lengths))})
