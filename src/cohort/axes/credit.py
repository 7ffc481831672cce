"""Credit axis: advantages -> per-token advantages. A function takes the batch and advantages [N, T] and returns advantages
[N, T], or the batch with whatever else it changes."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import top_tokens
from cohort.types import Batch


def mask_tokens(advantages: Tensor, tokens: Tensor) -> Tensor:
    """[N, T] advantages where `tokens` [N, T] bool is True, 0 elsewhere."""
    return torch.where(tokens, advantages, torch.zeros_like(advantages))


def weight_groups(batch: Batch, advantages: Tensor, weight: Tensor) -> Tensor:
    """[N, T] advantages times the weight [P] of the rollout's group."""
    return weight[batch.groups.index, None] * advantages


def uncertain_tokens(batch: Batch, share: float) -> Tensor:
    """[N, T] bool: that share of each rollout's tokens of the loss, at least one: those sampled at the highest entropy.

    A function that asks for it declares `@needs("old_entropy")`.
    """
    return top_tokens(batch["old_entropy"], batch.loss_mask, share)
