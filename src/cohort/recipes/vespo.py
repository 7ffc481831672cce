"""VESPO: Variational Sequence-Level Soft Policy Optimization for Stable Off-Policy LLM Training. arXiv:2602.10693.

Code FloyedShen/VESPO. Confidence: exact.

The ratio of a whole rollout, a product, has a huge variance once rollouts are stale. A smooth kernel damps both of its
tails, without a bias by length:

    log W_i = sum_t clip(logp - old_logp, -20, 20) + sum_t log min(exp(old_logp - sampler_logp), sampler_cap)
    phi_i   = W^k exp(lambda (1 - W)), without gradient;      (k, lambda) by the sign of A_i;  phi(1) = 1
    loss    = -(1/sum m) sum_it phi_i A_i logp_it

log W is held within log 1e-8 and 20. `sampler_cap` None leaves the sampler's log-probabilities out. The value of the loss
means nothing; its gradient does.

Defaults: k 2, lambda 3 for A >= 0, and 3, 2 for A < 0 (all released scripts; a docstring of the code names others).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.axes.advantage import rollout_means
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_sum
from cohort.types import Batch
from cohort.types.declare import needs

LIMIT, LEAST = 20.0, math.log(1e-8)


def log_ratio(batch: Batch, *, sampler_cap: float | None) -> Tensor:
    """log W_i, bounded, without gradient: [N]; 0 for a rollout without tokens."""
    moved = (batch.logp - batch.old_logp).detach().clamp(-LIMIT, LIMIT)
    if sampler_cap is not None:
        apart = batch.old_logp - batch["sampler_logp"]
        # Nothing is corrected where no sampler drew the token.
        moved = moved + torch.where(apart.isnan(), 0.0, apart.clamp(min=LEAST, max=math.log(sampler_cap)))
    return token_sum(moved, batch.mask).clamp(LEAST, LIMIT)


@needs("old_logp", sampler_logp=lambda sampler_cap: sampler_cap is not None)
def soft_weight(
    batch: Batch,
    *,
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
    sampler_cap: float | None = None,
) -> Tensor:
    """phi_i at every token: [N, T], without gradient. Source: arXiv:2602.10693."""
    log_w, up = log_ratio(batch, sampler_cap=sampler_cap), rollout_means(batch) >= 0
    k = torch.where(up, k_pos, k_neg).to(log_w.dtype)
    scale = torch.where(up, lambda_pos, lambda_neg).to(log_w.dtype)
    phi = (scale + k * log_w - scale * log_w.exp()).exp().nan_to_num(0.0, posinf=0.0)
    return phi[:, None].expand_as(batch.logp)


def weighted(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """l_it = -phi_i A_it logp_it: [N, T]."""
    return ratio * surrogate.reinforce(batch, ratio, advantages)


@recipe(
    title="VESPO: Variational Sequence-Level Soft Policy Optimization for Stable Off-Policy LLM Training",
    paper="arXiv:2602.10693",
    idea="a smooth kernel on the true sequence ratio, for stale rollouts",
    confidence="exact",
)
def vespo(
    *,
    k_pos: Annotated[float, "[0, inf)"] = 2.0,
    lambda_pos: Annotated[float, "[0.0001, inf)"] = 3.0,
    k_neg: Annotated[float, "[0, inf)"] = 3.0,
    lambda_neg: Annotated[float, "[0.0001, inf)"] = 2.0,
    sampler_cap: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    kernel = {"k_pos": k_pos, "lambda_pos": lambda_pos, "k_neg": k_neg, "lambda_neg": lambda_neg}
    return Method(
        ratio=use(soft_weight, sampler_cap=sampler_cap, **kernel),
        surrogate=use(weighted),
        aggregation=use(aggregation.token_mean),
    )
