"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cohort.batch import Request


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: the logits are divided by it; 0 takes the most likely token.
        top_p: smallest set of most likely tokens with this mass; 1 keeps all.
        top_k: number of most likely tokens; 0 keeps all.
        min_p: tokens with at least this share of the most likely token's probability; 0 keeps all.
        stop_ids: token ids that end a rollout; None takes the policy's.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop_ids: frozenset[int] | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def truncated(self) -> bool:
        """True if some tokens cannot be drawn."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


@dataclass
class Completion:
    """Tokens drawn for a request, its prefix not included.

    Attributes:
        tokens: token ids; a stop token that ended it is the last.
        logp: log-probabilities (nats) at the sampling temperature, before truncation by top-p, top-k or min-p, in
            float32: what the trainer's scoring gives for the same weights.
        sampled_logp: log-probabilities of the distribution sampled from, adaptive temperature and truncation included.
        entropy: entropies (nats) at the sampling temperature, before truncation.
        finished: True if a stop token ended it.
    """

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    sampled_logp: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    finished: bool = False


class Engine(Protocol):
    """Draws completions.

    Attributes:
        exact: True if `logp` is that of the trainer's own weights and arithmetic, up to rounding.
    """

    exact: bool

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """(place of the request, completion) of every request, in the order in which they finish.

        The same request with the same seed gives the same tokens whatever else is in the call.
        """
        ...

    def sync(self) -> None:
        """Take over the trainer's current weights; nothing to do for an engine that shares them."""
        ...
