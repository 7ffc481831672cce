"""Lite PPO: Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning. arXiv:2508.08221.

Confidence: exact as to TRL's implementation.

Of all tricks two suffice on base models: a baseline by group with the standard deviation of the whole batch, since that
of a nearly constant group blows its advantages up, and a loss that counts tokens:

    A_i  = (r_i - mean_g r) / (s + 1e-4),   s the sample standard deviation of all rewards about their common mean
    loss = token mean of -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)

Defaults: clip 0.2 (the paper finds 0.28 to 0.32 above useful for aligned models).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import advantage, aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import batch_std
from cohort.types import Batch
from cohort.types.declare import declare


@declare(group_size=2)
def batch_scaled(batch: Batch, *, eps: float = 1e-4, ddof: int = 1) -> Tensor:
    """(r_i - mean_g r) / (s + eps): [N]; 0 in a group of equal rewards. Source: arXiv:2508.08221."""
    return advantage.centred(batch) / (batch_std(batch.rewards, ddof) + eps)


@recipe(
    title="Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning",
    paper="arXiv:2508.08221",
    idea="baseline by group, standard deviation of the batch, token mean",
    confidence="exact",
)
def lite_ppo(
    *,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-4,
    std_ddof: Annotated[int, (0, 1)] = 1,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    return Method(
        advantage=use(batch_scaled, eps=adv_eps, ddof=std_ddof),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.token_mean),
    )
