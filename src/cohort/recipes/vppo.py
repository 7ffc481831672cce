"""VPPO: Spotlight on Token Perception for Multimodal Reinforcement Learning (Visually-Perceptive Policy Optimization).

arXiv:2510.09285, code huaixuheqing/VPPO-RL. Confidence: exact; the code takes the mean of the scores over a micro-batch
and their range over the minibatch, here as in the equation both are over one batch, that of the step. Training needs
images, which cohort does not take yet.

A second pass scores the tokens with the image masked (`aug_logp`), by the same policy and without gradient:

    S_it  = k3 of old_logp against aug_logp, log ratio clipped to 20, value to 10      how far the token looks
    M_it  = 1 for the ceil(token_fraction L_i) tokens of the rollout with the largest S, of equals the earlier
    s_i   = mean_t S_it,   norm_i = (s_i - min s) / (max s - min s)                     over rollouts with tokens
    alpha = beta_min + norm_i (beta_max - beta_min),   beta_max = beta_min + (1 - beta_min) / mean(norm)
    A_it <- M_it alpha_i A_i,   loss + entropy_penalty (-logp)

The mean of alpha is 1; it is 1 everywhere where the scores are equal. Tokens with M = 0 count in the loss's mean. The
base is DAPO: dapo+vppo. For the masked image each patch of 14 pixels is blackened with probability 0.5.

Defaults: the paper's (larger entropy_penalty for Qwen3-VL); its advantages divide by the sample standard deviation.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from cohort.axes.credit import mask_tokens
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean, top_tokens
from cohort.reductions.kl import k3_clamped
from cohort.types import Batch
from cohort.types.declare import needs


class Scale(NamedTuple):
    """alpha [N], and the largest value that it may take."""

    alpha: Tensor
    beta_max: float


def token_scores(batch: Batch) -> Tensor:
    """S_it, how much the token's likelihood depends on the image: [N, T]."""
    return k3_clamped(batch.old_logp, batch["aug_logp"]).clamp(min=0).detach()


def trajectory_scale(scores: Tensor, there: Tensor, *, beta_min: float) -> Scale:
    """alpha_i of rollouts with scores [N], with mean 1 over those with tokens (`there` [N] bool), 1 for the others."""
    one = torch.ones_like(scores)
    if int(there.sum()) < 2 or float(spread := scores[there].max() - scores[there].min()) <= 1e-6:
        return Scale(one, 1.0)
    norm = (scores - scores[there].min()) / spread
    beta_max = beta_min + (1 - beta_min) / (norm[there].mean() + 1e-8)
    return Scale(torch.where(there, beta_min + norm * (beta_max - beta_min), one), float(beta_max))


@needs("old_logp", "aug_logp")
def perceptive(batch: Batch, advantages: Tensor, *, token_fraction: float = 0.4, beta_min: float = 0.9) -> Tensor:
    """M_it alpha_i A_it: [N, T]. Source: arXiv:2510.09285."""
    scores = token_scores(batch)
    scale = trajectory_scale(token_mean(scores, batch.mask), batch.mask.any(1), beta_min=beta_min)
    looking = top_tokens(scores, batch.mask, token_fraction)
    return mask_tokens(scale.alpha[:, None] * advantages, looking)


def sampled_entropy(batch: Batch, *, coef: float = 0.06) -> Tensor:
    """-coef logp_it, whose mean is an estimate of the entropy, to be lowered: [N, T]."""
    return -coef * batch.logp


@recipe(
    title="Spotlight on Token Perception for Multimodal Reinforcement Learning",
    paper="arXiv:2510.09285",
    idea="train the tokens, and weigh the rollouts, that look at the image",
    confidence="exact",
)
def vppo(
    *,
    token_fraction: Annotated[float, "(0, 1]"] = 0.4,
    beta_min: Annotated[float, "[0, 1]"] = 0.9,
    entropy_penalty: Annotated[float, "[0, inf)"] = 0.06,
) -> Method:
    return Method(
        credit=(use(perceptive, token_fraction=token_fraction, beta_min=beta_min),),
        regularizer=(use(sampled_entropy, coef=entropy_penalty),) if entropy_penalty else (),
        requires="vision",
    )
