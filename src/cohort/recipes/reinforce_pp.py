"""REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization.

arXiv:2501.03262. Confidence: exact (population variance with floor 1e-8, as in the authors' framework).

    q_it = -beta (old_logp - ref_logp) + [t last] r_i           R_it = q_it + gamma R_i,t+1        variant="plain"
    a_i  = r_i - mean_g r,  plus beta (logp - ref)^2 / 2 in the loss                               variant="baseline"
    A_it = (R_it - mu) / sqrt(max(var, 1e-8)),  mu and var over all valid tokens of the batch
    loss = token mean of -min(rho A, clip(rho, 0.8, 1.2) A)

Defaults: gamma 1 and clip 0.2 are the paper's; beta is of the order it reports (1e-2).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation, regularizer, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.kl import k1
from cohort.reductions.scan import discounted_sum
from cohort.types import Batch
from cohort.types.declare import declare, needs


@needs("old_logp", ref_logp=lambda beta: beta > 0)
def returns(batch: Batch, *, beta: float, gamma: float) -> Tensor:
    """[N, T] R_it = sum over s >= t of gamma^(s-t) q_is, with the reward at the last token and the KL at every token.

    Tokens written by an environment carry no reward of their own and take no step of discount.
    """
    mask = batch.mask.to(batch.dtype)
    after = mask.flip(1).cumsum(1).flip(1)  # 1 at the last valid token
    token_reward = torch.where(batch.mask & (after == 1), batch.rewards[:, None], torch.zeros_like(mask))
    if beta:
        token_reward = token_reward - beta * k1(batch.old_logp, batch.ref_logp)
    step = torch.where(batch.mask, torch.full_like(mask, gamma), torch.ones_like(mask))
    return discounted_sum(torch.where(batch.mask, token_reward, torch.zeros_like(mask)), step)


def whiten(values: Tensor, mask: Tensor, *, var_min: float) -> Tensor:
    """(x - mu) / sqrt(max(var, var_min)) with mean and population variance over the valid tokens of the batch."""
    valid = values[mask]
    if valid.numel() == 0 or bool(valid.max() == valid.min()):
        return torch.zeros_like(values)
    return torch.where(mask, (values - valid.mean()) / valid.var(correction=0).clamp(min=var_min).sqrt(), 0.0)


@needs("old_logp", ref_logp=lambda beta: beta > 0)
def global_returns(batch: Batch, *, beta: float = 0.01, gamma: float = 1.0, var_min: float = 1e-8) -> Tensor:
    """Returns-to-go with the KL in the reward, normalised over all tokens of the batch: [N, T]."""
    return whiten(returns(batch, beta=beta, gamma=gamma), batch.mask, var_min=var_min)


@declare(group_size=2)
def global_baseline(batch: Batch, *, var_min: float = 1e-8) -> Tensor:
    """r_i - mean_g r, normalised over all tokens of the batch: [N, T]."""
    return whiten(advantage.centred(batch)[:, None].expand(batch.mask.shape), batch.mask, var_min=var_min)


@recipe(
    title="REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
    paper="arXiv:2501.03262",
    idea="advantages normalised over the whole batch instead of the group",
    confidence="exact",
)
def reinforce_pp(
    *,
    variant: Annotated[str, ("plain", "baseline")] = "plain",
    kl_beta: Annotated[float, "[0, inf)"] = 0.01,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    var_min: Annotated[float, "(0, inf)"] = 1e-8,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    plain = variant == "plain"
    return Method(
        advantage=use(global_returns, beta=kl_beta, gamma=gamma, var_min=var_min)
        if plain
        else use(global_baseline, var_min=var_min),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k2"),) if kl_beta and not plain else (),
        aggregation=use(aggregation.token_mean),
    )
