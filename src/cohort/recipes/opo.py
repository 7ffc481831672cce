"""OPO: On-Policy RL with Optimal Reward Baseline. arXiv:2505.23585. Confidence: exact (the authors' function in verl).

The group's mean is not the baseline of least variance where rollouts differ in length. If the squared gradient of a rollout
grows with its length, this one is:

    b_g  = sum_i L_i r_i / sum_i L_i          A_i = r_i - b_g
    loss = -sum_it A_i logp_it / sum m        exactly on policy: one update a step

No deviation, KL or entropy bonus. A group of one has nothing to compare with and gets 0 (verl: r).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.axes import aggregation, ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_sum
from cohort.types import Batch
from cohort.types.declare import declare


def baseline(batch: Batch) -> Tensor:
    """[P] b_g; 0 for a group without tokens."""
    length = batch.lengths.to(batch.dtype)
    return group_sum(length * batch.rewards, batch.groups) / group_sum(length, batch.groups).clamp(min=1)


@declare(group_size=2, on_policy="its baseline is the best one for gradients that are exactly on policy")
def length_weighted(batch: Batch) -> Tensor:
    """r_i - b_g: [N]; exactly 0 in a group of equal rewards. Source: arXiv:2505.23585."""
    flat = group_flat(batch.rewards, batch.groups)[batch.groups.index]
    return torch.where(flat, 0.0, batch.rewards - baseline(batch)[batch.groups.index])


@recipe(
    title="On-Policy RL with Optimal Reward Baseline",
    paper="arXiv:2505.23585",
    idea="a baseline weighted by length, exactly on policy",
    confidence="exact",
)
def opo() -> Method:
    return Method(
        advantage=use(length_weighted),
        ratio=use(ratio.none),
        surrogate=use(surrogate.reinforce),
        aggregation=use(aggregation.token_mean),
    )
