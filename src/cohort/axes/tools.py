"""What the loop lends to the sampling and guidance axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cohort.batch import Message, Request, Rollout


@dataclass(frozen=True)
class Tools:
    """What the loop lends to sampling and guidance.

    Attributes:
        generate: draw one rollout per request, continuing after its prefix; not scored.
        draw: draw by the method's sampling axis, and score.
        ask: have the current policy answer messages (or plain texts) in text; not trained on.
        render: messages or plain text -> context token ids, through the chat template.
        encode: text -> token ids, nothing added.
        cut: a rollout shortened to its first tokens, unfinished, its text renewed.
        rng: randomness of this step.
    """

    generate: Callable[[Sequence[Request]], list[Rollout]]
    draw: Callable[[Sequence[Request]], list[Rollout]]
    ask: Callable[[Sequence[str | list[Message]]], list[str]]
    render: Callable[[str | list[Message]], tuple[int, ...]]
    encode: Callable[[str], tuple[int, ...]]
    cut: Callable[[Rollout, int], Rollout]
    rng: torch.Generator
