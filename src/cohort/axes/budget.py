"""Budget axis: how many rollouts each prompt gets. A function returns counts [M] int64 for the M prompts picked.

One that names `drawn`, the rollouts that each of the M prompts got so far, is asked again after every round of sampling, until
it gives nothing more. It may name `pool: Pool`, as a curriculum may, and may return (counts, a mapping for each prompt), which
the requests of that prompt carry as `meta`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def equal(rows: Tensor, *, group_size: int) -> Tensor:
    """`group_size` rollouts for every prompt."""
    return torch.full_like(rows, group_size)


def single(rows: Tensor) -> Tensor:
    """One rollout for every prompt, whatever the run's group size."""
    return torch.ones_like(rows)
