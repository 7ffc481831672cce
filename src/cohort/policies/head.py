"""From hidden states to log-probabilities, without holding the logits of every token at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Logits held at once, in numbers: 8 million are 32 MB in float32.
MOST_LOGITS = 8 * 2**20


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """hidden [M, d] -> logits [M, V] of a transformers model, as its own forward pass makes them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = base.get_output_embeddings()
    cap = getattr(base.config, "final_logit_softcapping", None)

    def logits(hidden: Tensor) -> Tensor:
        raw: Tensor = layer(hidden)
        return raw if cap is None else torch.tanh(raw / cap) * cap

    return logits


def statistics_of(logits: Tensor, tokens: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
    """Log-probability of the tokens and entropy (0 if not asked for), [M] each, in float32 or wider, in nats.

    Args:
        logits: [M, V]; tokens: [M].
        temperature: the logits are divided by it, as when sampling; 1 leaves them.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)
    logp = log_probs.gather(-1, tokens[:, None])[:, 0]
    return logp, -(log_probs.exp() * log_probs).sum(-1) if entropy else torch.zeros_like(logp)


def token_statistics(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor | None,
    logits: Tensor | None,
    tokens: Tensor,
    *,
    temperature: float,
    want: frozenset[str],
) -> dict[str, Tensor]:
    """ "logp", "entropy" [M] and "logits" [M, V] of completion tokens, those that are wanted.

    From hidden states the output layer is applied in chunks, whose logits are made again in the backward pass; they are
    all held only where they are wanted themselves, or few.

    Args:
        hidden: [M, d], or None where `logits` [M, V] are given.
        tokens: [M].
    """
    entropy = "entropy" in want
    if logits is None and hidden is not None and "logits" in want:
        logits = head(hidden)
    if logits is not None:
        logp, entropies = statistics_of(logits, tokens, temperature, entropy)
        scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
        return {"logp": logp, "entropy": entropies, "logits": scaled}
    assert hidden is not None
    vocabulary = int(head(hidden[:1].detach()).shape[-1]) if len(hidden) else 1
    size = max(1, MOST_LOGITS // vocabulary)

    def chunk(part: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return statistics_of(head(part), chosen, temperature, entropy)

    if len(hidden) <= size:
        logp, entropies = chunk(hidden, tokens)
        return {"logp": logp, "entropy": entropies}
    found = []
    for start in range(0, len(hidden), size):
        part, chosen = hidden[start : start + size], tokens[start : start + size]
        again = torch.is_grad_enabled()
        found.append(checkpoint(chunk, part, chosen, use_reentrant=False) if again else chunk(part, chosen))
    return {"logp": torch.cat([logp for logp, _ in found]), "entropy": torch.cat([each for _, each in found])}
