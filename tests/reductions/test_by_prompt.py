"""What is kept of prompts is counted over all rollouts of a prompt, whatever groups they stand in."""

from __future__ import annotations

import torch

from cohort.reductions.groups import by_prompt, group_mean
from tests.helpers import random_batch


def test_agents_of_an_episode_belong_to_one_prompt() -> None:
    batch = random_batch(0, groups=(2, 3, 4))
    # The first two groups are two agents' of row 7, the third is of row 2.
    row = torch.where(batch.groups.index == 2, 2, 7)
    prompts = by_prompt(batch.with_rollouts(row=row))
    assert prompts.labels.tolist() == [2, 7]
    means = group_mean(batch.rewards, prompts)
    for label, mean in zip((2, 7), means, strict=True):
        assert torch.allclose(mean, batch.rewards[row == label].mean())
