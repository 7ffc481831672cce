"""Ratio axis: how far the policy moved since the rollouts were drawn. A function returns the ratio [N, T]."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import token_mean, token_sum
from cohort.types import Batch
from cohort.types.declare import declare, needs

NO_RATIO = "it leaves out what drew the rollouts, so that without a correction they must be the updated policy's own"


@needs("old_logp")
def token(batch: Batch) -> Tensor:
    """rho_it = exp(logp_it - old_logp_it).

    Returns:
        [N, T], 1 at masked positions.

    Source: arXiv:2402.03300.
    """
    return (batch.logp - batch.old_logp).exp()


@needs("sampler_logp")
def against_sampler(batch: Batch) -> Tensor:
    """rho_it = exp(logp_it - sampler_logp_it): the ratio to the policy that sampled, with no proximal policy between.

    Returns:
        [N, T], 1 at masked positions, and where no sampler drew the token in this context.

    Source: rollout correction without a proximal policy; arXiv:2110.00641 has the one with it.
    """
    sampler = batch["sampler_logp"]
    return (batch.logp - torch.where(sampler.isnan(), batch.logp.detach(), sampler)).exp()


@needs("old_logp")
def token_bounded(batch: Batch, *, log_limit: float = 20.0) -> Tensor:
    """rho_it = exp(clip(logp_it - old_logp_it, -log_limit, log_limit)), for losses that nothing else bounds.

    Returns:
        [N, T], 1 at masked positions; no gradient beyond the limit.
    """
    return (batch.logp - batch.old_logp).clamp(-log_limit, log_limit).exp()


@needs("old_logp")
def sequence(batch: Batch, *, gradient: str = "sequence") -> Tensor:
    """s_i = exp( (1/L_i) sum_t (logp_it - old_logp_it) ), the geometric mean of the token ratios, at every token.

    Args:
        gradient: "sequence": the gradient of s_i; "token": s_it = sg[s_i] exp(logp_it - sg[logp_it]), whose value is
            s_i and whose gradient reaches its own token alone (for advantages that differ within a rollout).

    Returns:
        [N, T]; 1 for a rollout without tokens.

    Source: arXiv:2507.18071, GSPO and GSPO-token.
    """
    mean = token_mean(batch.logp - batch.old_logp, batch.mask)[:, None].expand_as(batch.logp)
    if gradient == "sequence":
        return mean.exp()
    return (mean.detach() + batch.logp - batch.logp.detach()).exp()


@needs("old_logp")
def sequence_product(batch: Batch) -> Tensor:
    """s_i = exp( sum_t (logp_it - old_logp_it) ), the ratio of the rollout as one action, at every token.

    Returns:
        [N, T]; 1 for a rollout without tokens.

    Source: arXiv:2402.14740.
    """
    return token_sum(batch.logp - batch.old_logp, batch.mask)[:, None].expand_as(batch.logp).exp()


@declare(on_policy=NO_RATIO)
def none(batch: Batch) -> Tensor:
    """No importance ratio: 1 at every token, for losses in which logp itself stands.

    Returns:
        [N, T].
    """
    return torch.ones_like(batch.logp)


@declare(on_policy=NO_RATIO)
def on_policy(batch: Batch) -> Tensor:
    """exp(logp - sg[logp]): the value 1 with the gradient of logp, REINFORCE written as a ratio.

    Returns:
        [N, T].
    """
    return (batch.logp - batch.logp.detach()).exp()
