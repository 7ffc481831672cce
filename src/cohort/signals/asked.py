"""Questions that a policy asks itself in an episode: which rollouts answer the same one.

The environment reports a component `question`: a whole number that equal questions share, 0 for the rollout that asks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.types import Batch, StepInfo

QUESTION, SOLVED = "question", "solved"


def questions_of(batch: Batch, info: StepInfo) -> Tensor:
    """[N] int64: a number of the question that a rollout answers; 0 of one that asks, or answers its prompt."""
    if QUESTION not in info.reward_names:
        return torch.zeros_like(batch["group"])
    return torch.nan_to_num(batch["reward_components"][:, info.reward_names.index(QUESTION)]).long()


def by_question(batch: Batch, info: StepInfo) -> Batch:
    """The batch with groups that hold the answers of one question each."""
    both = torch.stack([batch["group"], questions_of(batch, info)], 1)
    return batch.with_rollouts(group=torch.unique(both, dim=0, return_inverse=True)[1])
