"""Filter axis: which rollouts are kept. A function returns keep [N] bool."""

from __future__ import annotations

from torch import Tensor

from cohort.axes.declare import declare
from cohort.axes.groups import group_flat
from cohort.batch import Batch


@declare(refill="max_rounds")
def mixed_accuracy(batch: Batch, *, max_rounds: int = 10) -> Tensor:
    """Keep a group only if some of its rollouts are correct and some are not.

    The loop samples further prompts in place of those that were removed, up to `max_rounds` rounds a step.

    Returns:
        [N] bool.

    Source: dynamic sampling, arXiv:2503.14476 eq. 11.
    """
    return ~group_flat(batch["accuracy"], batch.groups)[batch.groups.index]
