"""Reward components by the name of the reward."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.errors import UsageError
from cohort.types import Batch, StepInfo


def component(batch: Batch, name: str, info: StepInfo) -> Tensor:
    """[N] what the reward `name` gave each rollout; 0 where it does not apply.

    A method reads a reward by name where it needs a signal that is not part of the sum, such as a judge's flag; its
    axis function declares the hyperparameter that holds the name (`components`), so that the run is refused without it.

    Raises:
        UsageError: the run has no such reward.
    """
    names = info.reward_names
    if name not in names:
        raise UsageError(
            f"there is no reward '{name}' here (there are: {', '.join(names) or 'none'}); add it with --reward"
        )
    return torch.nan_to_num(batch["reward_components"][:, names.index(name)])
