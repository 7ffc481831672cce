"""Aggregation axis: tokens -> scalar. A function returns the weights w [N, T] of loss = sum_it w_it l_it.

Weights rather than sums, so that the loop can cut a minibatch into micro-batches without changing the loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cohort.reductions.turns import turn_sizes
from cohort.types import Batch, StepInfo, generation_budget
from cohort.types.declare import needs


def sequence_mean(batch: Batch) -> Tensor:
    """w_it = m_it / (N max(L_i, 1)): mean over a rollout's tokens, then over rollouts; an empty rollout counts in N.

    Returns:
        [N, T].

    Source: arXiv:2402.03300.
    """
    mask = batch.loss_mask.to(batch.dtype)
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / batch.size


def token_mean(batch: Batch) -> Tensor:
    """w_it = m_it / max(1, sum of m): mean over all tokens of the batch, so that longer rollouts weigh more.

    Returns:
        [N, T].

    Source: arXiv:2503.14476.
    """
    mask = batch.loss_mask.to(batch.dtype)
    return mask / mask.sum().clamp(min=1)


@needs("turn")
def turn_mean(batch: Batch) -> Tensor:
    """w_it = m_it / (N T_i n_it): mean over a turn's n tokens, over a rollout's T turns, and over rollouts.

    Returns:
        [N, T].

    Source: arXiv:2510.05592.
    """
    tokens, turns = turn_sizes(batch["turn"], batch.loss_mask)
    share = tokens.clamp(min=1) * turns.clamp(min=1)[:, None] * batch.size
    return batch.loss_mask.to(batch.dtype) / share.to(batch.dtype)


@needs("agent")
def agent_mean(batch: Batch) -> Tensor:
    """w_it = c_i m_it / (L_i sum_j c_j), j over the rollouts of i's agent: the losses of agents, each the mean over its own
    rollouts, are added up.

    c_i is 1, or the field `copies` [N], how many times a rollout counts.

    Returns:
        [N, T].

    Source: arXiv:2511.13288, arXiv:2511.19524.
    """
    labels, agent = torch.unique(batch.agent, return_inverse=True)
    copies = batch["copies"].to(batch.dtype) if "copies" in batch else torch.ones_like(batch.lengths)
    total = torch.zeros(len(labels), dtype=batch.dtype, device=batch.device).index_add(0, agent, copies)
    mask = batch.loss_mask.to(batch.dtype)
    each = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return each * (copies / total.clamp(min=1)[agent])[:, None]


def constant(batch: Batch, *, max_tokens: int | None = None, info: StepInfo) -> Tensor:
    """w_it = m_it / (N max_tokens): the divisor never depends on the realised lengths.

    Args:
        max_tokens: the constant; None takes the generation budget of the run.

    Returns:
        [N, T].

    Source: arXiv:2503.20783.
    """
    return batch.loss_mask.to(batch.dtype) / (batch.size * (max_tokens or generation_budget(info)))


def token_sum(batch: Batch) -> Tensor:
    """w_it = m_it / N: sum over a rollout's tokens (the rollout is one action), mean over rollouts.

    Returns:
        [N, T].

    Source: arXiv:2402.14740.
    """
    return batch.loss_mask.to(batch.dtype) / batch.size


BY_NAME: dict[str, Callable[..., Tensor]] = {
    "seq": sequence_mean,
    "token": token_mean,
    "constant": constant,
    "token-sum": token_sum,
}
