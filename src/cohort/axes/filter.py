"""Filter axis: which rollouts are kept. A function returns keep [N] bool."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import group_flat, group_order, group_size
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


@declare(refill="max_rounds")
def mixed_accuracy(batch: Batch, *, max_rounds: int = 10) -> Tensor:
    """Keep a group only if some of its rollouts are correct and some are not.

    The loop samples further prompts in place of those that were removed, up to `max_rounds` rounds a step.

    Returns:
        [N] bool.

    Source: dynamic sampling, arXiv:2503.14476 eq. 11.
    """
    return ~group_flat(batch["accuracy"], batch.groups)[batch.groups.index]


def mixed_rewards(batch: Batch) -> Tensor:
    """Keep a group only if its rewards are not all equal; nothing is drawn in place of the others.

    Returns:
        [N] bool.
    """
    return ~group_flat(batch.rewards, batch.groups)[batch.groups.index]


def staleness(batch: Batch, *, version: int) -> Tensor:
    """[N] int64 how many versions of the weights have come since the oldest that drew a token of the rollout; 0 without
    tokens.

    Args:
        version: of the weights now.
    """
    return version - batch["version"].masked_fill(~batch.mask, version).amin(1)


@needs("version")
def fresh_groups(batch: Batch, *, max_staleness: int, info: StepInfo) -> Tensor:
    """Keep a group only if none of its rollouts is staler than `max_staleness`; groups are kept or dropped whole.

    Args:
        max_staleness: versions of the weights, at least 0.

    Returns:
        [N] bool.

    Source: prime-rl, max_off_policy_steps.
    """
    groups = batch.groups
    worst = torch.zeros_like(groups.labels).scatter_reduce(
        0, groups.index, staleness(batch, version=info.version), "amax"
    )
    return (worst <= max_staleness)[groups.index]


def first_of_group(batch: Batch, *, count: int | None = None) -> Tensor:
    """Keep the first `count` rollouts of every group, in the order of the batch.

    Args:
        count: None keeps half of them, rounded up, but two where there are two.

    Returns:
        [N] bool.

    Source: votes and training samples of arXiv:2504.16084.
    """
    groups = batch.groups
    _, place, _ = group_order(torch.zeros_like(groups.index), groups)
    if count is not None:
        return place < count
    return place < (group_size(groups, torch.float64) / 2).ceil().clamp(min=2)[groups.index]
