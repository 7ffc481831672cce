"""Access to sampling and to the models, for axis functions and hooks that need more than the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cohort.types import Message, Prompt, Request, Rollout

# What requests of some prompts carry as `meta`: a mapping for each, or none at all.
Notes = Sequence[Mapping[str, Any]]
# A function of the user's that judges rollouts for a method: itself, or path.py:function.
Judge = str | Callable[..., Any]


@dataclass(frozen=True)
class Pool:
    """Access to the prompts of the data set, for functions of the axes curriculum and budget that name `pool`.

    Attributes:
        prompts: the prompts, by row of the data set.
        draw: (rows [n] int64, count) -> rollouts, `count` for each row, drawn by themselves from the plain prompt by the
            current policy, and scored; those without a reward are left out. They are not trained on.
        states: (contexts, *, layer) -> n tensors [C, d], the policy's hidden states of a layer at every token of a context.
        judge: (judge, prompts, **texts) -> one verdict of the user's function for each prompt (see `ModelAccess.judge`).
    """

    prompts: Sequence[Prompt]
    draw: Callable[[Tensor, int], list[Rollout]]
    states: Callable[..., list[Tensor]]
    judge: Callable[..., list[Any]]


@dataclass(frozen=True)
class Sampler:
    """Access to the engine and the rewards, for functions of the axes sampling and guidance.

    Attributes:
        generate: draw one rollout per request, continuing after its prefix; not scored.
        extend: (rollout, at, n, *, insert, seeds) -> n rollouts that go on after its first `at` actions, behind the token ids
            `insert`; not scored. Of several rollouts, with a place each, the children of the first come first, and all are
            drawn together. A child's `parent` is the rollout's `id`. `seeds` has one for each child; by default they follow
            from the rollout's own, the place and n.
        draw: draw by the method's sampling axis, and score.
        grade: rollouts with their rewards, where sampling itself needs to know them; a rollout that could not be scored
            is left out.
        ask: have the current policy answer messages (or plain texts) in text; not trained on.
        render: (messages or plain text, schemas of tools) -> context token ids, through the chat template.
        encode: text -> token ids as it stands behind others, nothing added.
        encode_completion: (prompt, text) -> token ids of the text behind the prompt, nothing added.
        stop_ids: token ids that end what the policy says.
        cut: a rollout shortened to its first tokens, unfinished, its text renewed.
        states: (contexts, *, layer) -> n tensors [C, d], the policy's hidden states of a layer at every token of a context.
        judge: (judge, prompts, **texts) -> one verdict of the user's function for each prompt (see `ModelAccess.judge`).
        rng: randomness of this step.
        step, steps: steps completed, and steps of the run.
        context_length: most tokens of context and completion together that the model takes; None if it has no limit.
    """

    generate: Callable[[Sequence[Request]], list[Rollout]]
    extend: Callable[..., list[Rollout]]
    draw: Callable[[Sequence[Request]], list[Rollout]]
    grade: Callable[[Sequence[Rollout]], list[Rollout]]
    ask: Callable[[Sequence[str | list[Message]]], list[str]]
    render: Callable[..., tuple[int, ...]]
    encode: Callable[[str], tuple[int, ...]]
    encode_completion: Callable[[Prompt, str], tuple[int, ...]]
    stop_ids: frozenset[int]
    cut: Callable[[Rollout, int], Rollout]
    states: Callable[..., list[Tensor]]
    judge: Callable[..., list[Any]]
    rng: torch.Generator
    step: int = 0
    steps: int = 1
    context_length: int | None = None


@dataclass(frozen=True)
class ModelAccess:
    """Access to the rollouts behind a batch and to passes of the models, for the hooks `on_scored` and `on_step_end`.

    Attributes:
        rollouts: the rollout of each row of the batch, with its text, its prompt and the prompt's columns.
        log_probs: (contexts, completions, *, role, temperature, want, support) -> name -> [n, T'], without gradient, in
            micro-batches. `contexts` and `completions` are n sequences of token ids each (a context has at least one
            token); `role` is "policy", "reference" or "ema"; `temperature` None is the run's own; `want` holds
            "logp", "entropy", "values" [n, T'], or "logits", "hidden" [n, T', ...]; `support` holds what each completion
            was drawn over (`Rollout.support`), for numbers that are compared with the batch's. Token t of the result
            belongs to token t of the completion.
        states: (contexts, *, layer) -> n tensors [C, d], the hidden states of a layer at every token of a context.
        head: weights [V, d] of the output layer.
        encode, decode: text -> token ids as it stands behind others, and back.
        render: (messages or plain text, schemas of tools) -> context token ids, through the chat template.
        judge: (judge, prompts, **texts) -> one verdict of the user's function for each prompt; `texts` are lists of as many
            texts, under the names by which the judge takes them.
        step, steps: steps completed, and steps of the run.
        temperature: the run's own, at which rollouts are drawn and scored.
        context_length: most tokens of context and completion together that the model takes; None if it has no limit.
    """

    rollouts: Sequence[Rollout]
    log_probs: Callable[..., dict[str, Tensor]]
    states: Callable[..., list[Tensor]]
    head: Callable[[], Tensor]
    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]
    render: Callable[..., tuple[int, ...]]
    judge: Callable[..., list[Any]]
    step: int = 0
    steps: int = 1
    temperature: float = 1.0
    context_length: int | None = None

    def logits(self) -> Iterator[tuple[int, Tensor]]:
        """(row of the batch, logits [L, V] in float32 at its L tokens), of each rollout that has some; one at a time, since
        they are wide."""
        for row, rollout in enumerate(self.rollouts):
            if rollout.tokens:
                found = self.log_probs([rollout.context], [rollout.tokens], want=frozenset({"logits"}))["logits"]
                yield row, found[0, : len(rollout.tokens)].float()

    def column(self, name: str) -> list[Any]:
        """Values of a column of the data set, one for each row of the batch; None where the column is missing."""
        return [rollout.prompt.row.get(name) for rollout in self.rollouts]
