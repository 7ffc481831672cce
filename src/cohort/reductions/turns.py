"""Reductions over the turns of rollouts."""

from __future__ import annotations

import torch
from torch import Tensor


def turn_sizes(turn: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """How many tokens with mask 1 each token's turn has, and how many turns with such tokens each rollout has.

    Args:
        turn: [N, T] int64, number of the turn of each token; arbitrary where the mask is 0.

    Returns:
        tokens [N, T] int64, 0 at masked positions; turns [N] int64.
    """
    if not mask.numel():
        return torch.zeros_like(turn), mask.sum(1)
    turn = torch.where(mask, turn, 0)
    count = torch.zeros(len(mask), int(turn.max()) + 1, dtype=torch.int64, device=mask.device)
    count = count.scatter_add(1, turn, mask.to(torch.int64))
    return torch.where(mask, count.gather(1, turn), 0), (count > 0).sum(1)
