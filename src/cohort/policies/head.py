"""From hidden states to log-probabilities, without holding the logits of every token at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cohort.types.support import Flat

# Logits held at once, in numbers: 8 million are 32 MB in float32.
MOST_LOGITS = 8 * 2**20
# The logit of a token that could not be drawn: of probability 0, but a difference of two is a number.
FAR = -1e9


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """hidden [M, d] -> logits [M, V] of a transformers model, as its own forward pass makes them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = base.get_output_embeddings()
    cap = getattr(base.config, "final_logit_softcapping", None)

    def logits(hidden: Tensor) -> Tensor:
        raw: Tensor = layer(hidden)
        return raw if cap is None else torch.tanh(raw / cap) * cap

    return logits


def entropy_of(log_probs: Tensor, *, whole: bool, probs: Tensor | None = None) -> Tensor:
    """[M] entropies (nats) of log-probabilities [M, V].

    Args:
        whole: no token is excluded (-inf), which need not be looked for.
        probs: [M, V], if they are there already.
    """
    finite = log_probs if whole else log_probs.masked_fill(log_probs == -torch.inf, 0.0)
    return -((log_probs.exp() if probs is None else probs) * finite).sum(-1)


def scaled(logits: Tensor, tokens: Tensor, temperature: float, support: Flat | None) -> Tensor:
    """[M, V] logits of the policy in float32 or wider: over the temperature, -inf at tokens that could not be drawn."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logits = logits if support is None else support.apply(logits, tokens)
    return logits if temperature == 1.0 else logits / temperature


def statistics_of(
    logits: Tensor, tokens: Tensor, temperature: float, entropy: bool, support: Flat | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of the tokens and entropy (0 if not asked for), [M] each, in float32 or wider, in nats.

    Args:
        logits: [M, V]; tokens: [M].
        temperature: the logits are divided by it, as when sampling; 1 leaves them.
        support: what the tokens were drawn over; None for the whole vocabulary.
    """
    over = scaled(logits, tokens, temperature, support)
    log_probs = over.log_softmax(-1)
    logp = log_probs.gather(-1, tokens[:, None])[:, 0]
    if support is not None and support.soft is not None:
        logp = support.softened(logp, over)
    return logp, entropy_of(log_probs, whole=support is None) if entropy else torch.zeros_like(logp)


def token_statistics(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor | None,
    logits: Tensor | None,
    tokens: Tensor,
    *,
    temperature: float,
    want: frozenset[str],
    support: Flat | None = None,
) -> dict[str, Tensor]:
    """ "logp", "entropy" [M] and "logits" [M, V] of completion tokens, those that are wanted.

    From hidden states the output layer is applied in chunks, whose logits are made again in the backward pass; they are
    all held only where they are wanted themselves, or few.

    Args:
        hidden: [M, d], or None where `logits` [M, V] are given.
        tokens: [M].
        support: what the tokens were drawn over. Logits outside it are `FAR`, so that a method can take differences.
    """
    entropy = "entropy" in want
    if logits is None and hidden is not None and "logits" in want:
        logits = head(hidden)
    if logits is not None:
        logp, entropies = statistics_of(logits, tokens, temperature, entropy, support)
        whole = scaled(logits, tokens, temperature, support)
        return {"logp": logp, "entropy": entropies, "logits": whole if support is None else whole.clamp(min=FAR)}
    assert hidden is not None
    vocabulary = int(head(hidden[:1].detach()).shape[-1]) if len(hidden) else 1
    size = max(1, MOST_LOGITS // vocabulary)

    def chunk(part: Tensor, chosen: Tensor, over: Flat | None) -> tuple[Tensor, Tensor]:
        return statistics_of(head(part), chosen, temperature, entropy, over)

    if len(hidden) <= size:
        logp, entropies = chunk(hidden, tokens, support)
        return {"logp": logp, "entropy": entropies}
    found = []
    # Split rather than sliced: the gradients of slices would each be as large as the whole.
    for at, (part, chosen) in enumerate(zip(hidden.split(size), tokens.split(size), strict=True)):
        over = None if support is None else support.part(at * size, (at + 1) * size)
        again = torch.is_grad_enabled()
        found.append(checkpoint(chunk, part, chosen, over, use_reentrant=False) if again else chunk(part, chosen, over))
    return {"logp": torch.cat([logp for logp, _ in found]), "entropy": torch.cat([each for _, each in found])}
