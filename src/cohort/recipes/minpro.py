"""MinPRO: A Step Back: Prefix Importance Ratio Stabilizes Policy Optimization. arXiv:2601.22718.

Confidence: reconstructed: the empty prefix counts as 1, masked tokens are skipped, clip values. Known: the objective.

Off-policy, the correct weight of a token is the product of the ratios of everything before it, whose variance explodes.
The smallest ratio of the prefix stands in for that product, and the weight is clipped without losing any gradient:

    rho_it = exp(logp - old_logp)
    u_it   = min over the tokens before t of rho_ij, and 1 at the first token
    w_it   = sg[ clip(u_it rho_it, 1 - clip_low, 1 + clip_high) ]
    loss   = -(1/sum(m)) sum_it m_it w_it A_i logp_it

u exceeds 1 where every earlier ratio does. Tokens that the policy did not choose neither enter nor reset the minimum.

Defaults: clip 0.2 and 0.28 as in DAPO (the paper's values were not recorded); clip_low 1 takes the lower bound away.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import needs


def log_prefix_min(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """[N, T] smallest log ratio among the earlier tokens with mask 1; 0 where there is none."""
    before = torch.full_like(log_ratio, torch.inf)
    before[:, 1:] = torch.where(mask, log_ratio, before)[:, :-1]
    smallest = before.cummin(1).values
    return torch.where(smallest.isinf(), torch.zeros_like(smallest), smallest)


@needs("old_logp")
def prefix_ratio(batch: Batch) -> Tensor:
    """u_it rho_it = exp(min over earlier tokens of (logp - old_logp) + (logp_it - old_logp_it)), without gradient.

    Returns:
        [N, T].

    Source: arXiv:2601.22718.
    """
    log_ratio = (batch.logp - batch.old_logp).detach()
    return (log_prefix_min(log_ratio, batch.mask) + log_ratio).exp()


@recipe(
    title="A Step Back: Prefix Importance Ratio Stabilizes Policy Optimization",
    paper="arXiv:2601.22718",
    idea="a token's weight counts the smallest ratio of its prefix as well",
    confidence="reconstructed: empty prefix, masked tokens, clip values",
)
def minpro(*, clip_low: Annotated[float, "[0, 1]"] = 0.2, clip_high: Annotated[float, "[0, inf)"] = 0.28) -> Method:
    return Method(
        ratio=use(prefix_ratio),
        surrogate=use(surrogate.weighted_reinforce, is_clip_low=clip_low, is_clip_high=clip_high),
        aggregation=use(aggregation.token_mean),
    )
