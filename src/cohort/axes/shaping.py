"""Shaping axis: rewards -> rewards. A function returns the shaped rewards [N], or a batch that holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.axes.declare import needs
from cohort.axes.groups import token_sum
from cohort.axes.regularizer import k1
from cohort.batch import Batch, generation_budget


@needs("old_logp", "ref_logp")
def kl_in_reward(batch: Batch, *, beta: float) -> Tensor:
    """R_i = r_i - beta sum_t (old_logp_it - ref_logp_it), the k1 estimate of the whole rollout, without gradient.

    Returns:
        [N].

    Source: arXiv:2402.14740.
    """
    return batch.rewards - beta * token_sum(k1(batch.old_logp, batch.ref_logp), batch.mask)


def overlong_penalty(lengths: Tensor, max_len: float, cache_len: float) -> Tensor:
    """0 up to max_len - cache_len, then falling linearly to -1 at max_len, and -1 beyond; [N] for lengths [N]."""
    falling = ((max_len - cache_len) - lengths) / cache_len
    return torch.where(lengths > max_len, -torch.ones_like(lengths), falling.clamp(max=0.0))


def soft_overlong(batch: Batch, *, max_len: int | None = None, cache_len: int | None = None) -> Tensor:
    """Rewards plus the soft overlong punishment.

    Args:
        max_len: hard limit in tokens; None takes the generation budget of the run.
        cache_len: width of the fall in tokens; None takes a fifth of max_len, the paper's share.

    Returns:
        [N].

    Source: arXiv:2503.14476 eq. 13.
    """
    limit = max_len or generation_budget(batch)
    return batch.rewards + overlong_penalty(batch.lengths, limit, cache_len or max(1, limit // 5))
