"""GPG: Group Policy Gradient, A Simple and Strong Reinforcement Learning Baseline for Model Reasoning. arXiv:2504.02546.

Code AMAP-ML/GPG. Confidence: exact (the authors' trainers; verl's port takes another alpha, that of no batch in particular).

One update a batch needs no ratio, clip or reference. Groups without signal dilute the gradient, which is scaled up for them:

    A_i  = alpha (r_i - mean_g r) / F,   F = 1, or the group's sample deviation + adv_eps (scale_by_std)
    alpha = B / (B - M),   B rollouts in the batch, M of them in groups of equal rewards;   1 with rescale=False
    loss = -sum_it A_i logp_it / sum m

Resampling (min_valid_fraction above 0): rounds of prompts are drawn until that share of the step's groups has a signal, and
empty groups fill up. After max_rounds the step goes on with what it has, where the authors' trainer ends with an error.

Defaults: F 1, alpha, share 0.6 (text; 0.4 to 0.5 in other scripts), 20 rounds, token mean (the multimodal trainers take
aggregation="seq").
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, filter, ratio, surrogate
from cohort.axes import aggregation as aggregations
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_std
from cohort.types import Batch
from cohort.types.declare import declare


def rescaling(batch: Batch) -> Tensor:
    """alpha, a scalar; 1 where no group has a signal."""
    some = filter.mixed_rewards(batch).sum().to(batch.dtype)
    return torch.where(some > 0, batch.size / some.clamp(min=1), torch.ones_like(some))


@declare(group_size=2)
def group_gradient(
    batch: Batch, *, scale_by_std: bool = False, rescale: bool = True, eps: float = 1e-4, ddof: int = 1
) -> Tensor:
    """alpha (r_i - mean_g r) / F: [N]. Source: arXiv:2504.02546."""
    gain = advantage.centred(batch)
    if scale_by_std:
        gain = gain / (group_std(batch.rewards, batch.groups, ddof)[batch.groups.index] + eps)
    return gain * rescaling(batch) if rescale else gain


@declare(refill="max_rounds", refill_share="min_valid_fraction")
def with_signal(batch: Batch, *, min_valid_fraction: float = 0.6, max_rounds: int = 20) -> Tensor:
    """Groups whose rewards differ: [N] bool. Source: arXiv:2504.02546."""
    return filter.mixed_rewards(batch)


@recipe(
    title="GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning",
    paper="arXiv:2504.02546",
    idea="plain policy gradient, scaled up for the groups without signal",
    confidence="exact",
)
def gpg(
    *,
    scale_by_std: bool = False,
    rescale: bool = True,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-4,
    std_ddof: Annotated[int, (0, 1)] = 1,
    min_valid_fraction: Annotated[float, "[0, 1]"] = 0.6,
    max_rounds: Annotated[int, "[1, inf)"] = 20,
    aggregation: Annotated[str, ("token", "seq")] = "token",
) -> Method:
    how = {"scale_by_std": scale_by_std, "rescale": rescale, "eps": adv_eps, "ddof": std_ddof}
    again = use(with_signal, min_valid_fraction=min_valid_fraction, max_rounds=max_rounds)
    return Method(
        filter=(again,) if min_valid_fraction else (),
        advantage=use(group_gradient, **how),
        ratio=use(ratio.none),
        surrogate=use(surrogate.reinforce),
        aggregation=use(aggregations.BY_NAME[aggregation]),
    )
