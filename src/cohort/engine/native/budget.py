"""How many rollouts can be decoded at once within a bound on the memory of their keys and values."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM

# The cache of the rollouts' own tokens grows by this many tokens.
BLOCK = 64


def token_bytes(policy: CausalLM) -> int:
    """Of the keys and values of one token, in all layers."""
    config = policy.base.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * policy.dtype.itemsize)


def rows_within(
    policy: CausalLM, contexts: Sequence[tuple[int, ...]], own: int, *, slots: int, cache_mb: float | None, shared: bool
) -> tuple[int, float]:
    """(rollouts that are decoded at once, tokens that may be stored of contexts).

    Args:
        contexts: what is stored for each rollout before its own tokens; own: most tokens that the cache holds of one itself.
        slots: most rollouts.
        cache_mb: most megabytes (10^6 bytes) of keys and values; None sets no bound.
        shared: a context is stored once for all its rollouts; else once for each.

    Raises:
        UsageError: not even one rollout fits; says how much it needs.
    """
    rows = min(slots, len(contexts))
    if cache_mb is None:
        return rows, float("inf")
    longest, size = max(map(len, contexts)), token_bytes(policy)
    tokens = cache_mb * 1e6 / size
    if tokens < longest + own:
        raise UsageError(
            f"cache_mb = {cache_mb:g} is too small for one rollout: {longest} tokens of context and {own} of its own take "
            f"{(longest + own) * size / 1e6:.1f} MB of keys and values"
        )
    copies = len(set(contexts)) / len(contexts) if shared else 1.0
    fit = int((tokens - longest) / (own + copies * longest)) if shared else int(tokens / (own + longest))
    rows = max(1, min(rows, fit))
    return rows, tokens - rows * own


def blocks(tokens: int) -> int:
    """Tokens that there is room for where so many may come: whole blocks."""
    return -(-tokens // BLOCK) * BLOCK
