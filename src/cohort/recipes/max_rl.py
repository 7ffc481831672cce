"""MaxRL: Maximum Likelihood Reinforcement Learning. arXiv:2602.02710, code tajwarfahim/maxrl. Confidence: exact.

With rewards 0 and 1 RL maximises the pass rate p, maximum likelihood log p, whose gradient is 1/p larger on hard prompts.
Dividing by the mean gives the terms of log p = -sum_k (1 - p)^k / k up to an order that grows with the group:

    A_i = (r_i - m) / (m + adv_eps),   m the mean reward of the group;   0 where m <= 0

The rest is the host's. A group of one gets 0 (the authors' code r / eps). With the centring the expectation has the terms
up to G - 1, one less than the paper states. Rewards are meant to be at least 0.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean
from cohort.types import Batch
from cohort.types.declare import declare


@declare(group_size=2)
def over_mean(batch: Batch, *, eps: float = 1e-6) -> Tensor:
    """(r_i - m) / (m + eps): [N]; 0 in a group of equal rewards, and where m <= 0. Source: arXiv:2602.02710."""
    mean = group_mean(batch.rewards, batch.groups)[batch.groups.index]
    gain = advantage.centred(batch)
    return torch.where(mean > 0, gain / (mean.clamp(min=0) + eps), torch.zeros_like(gain))


@recipe(
    title="Maximum Likelihood Reinforcement Learning",
    paper="arXiv:2602.02710",
    idea="advantages divided by the pass rate, towards maximum likelihood",
    confidence="exact",
)
def max_rl(*, adv_eps: Annotated[float, "(0, inf)"] = 1e-6) -> Method:
    return Method(advantage=use(over_mean, eps=adv_eps))
