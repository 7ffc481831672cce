"""HAPO: From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature. arXiv:2509.16591.

Code starriver030515/HAPO. Confidence: exact, but for the sign of h at tokens of low entropy: the paper's text and every
formula below need it negative, the released code makes it positive.

    x = log max(H, 1e-8), med its entropy_pivot quantile;  h = x - med, divided by its maximum where positive and by
        |its minimum| elsewhere: in [-1, 1]
    T = T0 (1 + temperature_tau clip(h, -1, 1))                  at every decoding step, on the previous step's scale
    A = (R_i - mean) / (std + eps), over the completion tokens of the group, each with its rollout's reward; if an |A| of
        the group reaches fallback_limit, over its rollouts instead (sample standard deviation)
    low = clip_low (1 - clip_alpha h) where h <= 0, high = clip_high (1 + clip_alpha h) where h > 0, else as they are
    A' = A (1 + adv_beta h) where h > 0 and the ratio left (1 - low / 2, 1 + high / 2), or h <= 0 and it did not; else A
    loss = token mean of max(-A' r, -A' clip(r, 1 - low, 1 + high)), at most -dual_clip A' where A' < 0

H in the loss is the current policy's over the minibatch, at the temperature T0 as everywhere. logp is at T0 too, while
tokens are drawn at T. The paper also drops groups without signal: "hapo+dapo:filter".

Defaults: the paper's (temperature_tau is to be lowered if training collapses; 0 leaves sampling alone).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, sampling
from cohort.axes.advantage import standardise
from cohort.axes.surrogate import dual_clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_min, group_sum
from cohort.signals.entropy import entropy_scale, scaled_entropy
from cohort.types import Batch
from cohort.types.declare import declare, needs


def token_average(batch: Batch, *, fallback_limit: float, eps: float) -> tuple[Tensor, Tensor]:
    """Advantages [N], and which groups fell back to rollouts [P] bool."""
    rewards, groups, there = batch.rewards, batch.groups, batch.mask.any(1)
    tokens = batch.mask.sum(1).to(rewards.dtype)
    total = group_sum(tokens, groups).clamp(min=1)
    mean = (group_sum(tokens * rewards, groups) / total)[groups.index]
    std = (group_sum(tokens * (rewards - mean) ** 2, groups) / total).sqrt()[groups.index]
    most = group_max(torch.where(there, rewards, torch.full_like(rewards, -torch.inf)), groups)
    least = group_min(torch.where(there, rewards, torch.full_like(rewards, torch.inf)), groups)
    flat = (most <= least)[groups.index]
    value = torch.where(flat, torch.zeros_like(rewards), (rewards - mean) / (std + eps))
    fallback = group_max(torch.where(there, value.abs(), torch.zeros_like(value)), groups) >= fallback_limit
    rollout_level = standardise(rewards, groups, eps=eps, ddof=1)
    return torch.where(fallback[groups.index], rollout_level, value), fallback


@declare(group_size=2)
def over_tokens(batch: Batch, *, fallback_limit: float = 5.0, eps: float = 1e-6) -> Tensor:
    """(R_i - mean) / (std + eps) over the tokens of the group, or over its rollouts if that is too large: [N].

    Source: arXiv:2509.16591.
    """
    return token_average(batch, fallback_limit=fallback_limit, eps=eps)[0]


def by_nature(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, pivot: float, low: float, high: float, alpha: float, beta: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h (0 at masked tokens), the distances low and high of the clip bounds from 1, and A', each [N, T]."""
    entropy, r = batch["entropy"].detach(), ratio.detach()
    scale = entropy_scale(entropy, batch.mask, pivot=pivot)
    h = torch.zeros_like(r) if scale is None else batch.mask * scaled_entropy(entropy, scale)
    down, up = low * (1 - alpha * h.clamp(max=0)), high * (1 + alpha * h.clamp(min=0))
    still = (r > 1 - down / 2) & (r < 1 + up / 2)
    return h, down, up, torch.where((h > 0) ^ still, advantages * (1 + beta * h), advantages)


@needs("entropy")
@declare(couples=True)
def heterogeneous_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    entropy_pivot: float = 0.8,
    low: float = 0.2,
    high: float = 0.2,
    clip_alpha: float = 1.0,
    adv_beta: float = 1.0,
    dual_clip: float = 10.0,
) -> Tensor:
    """Clipped surrogate with bounds and advantages by the token's entropy: [N, T]. Source: arXiv:2509.16591."""
    how = {"pivot": entropy_pivot, "low": low, "high": high, "alpha": clip_alpha, "beta": adv_beta}
    _, down, up, shaped = by_nature(batch, ratio, advantages, **how)
    return dual_clipped(ratio, shaped, down, up, dual_clip)


@recipe(
    title="From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature",
    paper="arXiv:2509.16591",
    idea="temperature, advantage and clip range of each token by its entropy",
    confidence="exact",
)
def hapo(
    *,
    entropy_pivot: Annotated[float, "[0, 1]"] = 0.8,
    temperature_tau: Annotated[float, "[0, 1)"] = 0.05,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    clip_alpha: Annotated[float, "[0, inf)"] = 1.0,
    adv_beta: Annotated[float, "[0, 1]"] = 1.0,
    dual_clip: Annotated[float, "(1, inf)"] = 10.0,
    fallback_limit: Annotated[float, "(0, inf)"] = 5.0,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
) -> Method:
    tokens = {"clip_alpha": clip_alpha, "adv_beta": adv_beta, "dual_clip": dual_clip, "entropy_pivot": entropy_pivot}
    heated = use(sampling.by_entropy, temperature_tau=temperature_tau, entropy_pivot=entropy_pivot)
    return Method(
        sampling=heated if temperature_tau else None,
        advantage=use(over_tokens, fallback_limit=fallback_limit, eps=adv_eps),
        surrogate=use(heterogeneous_clip, low=clip_low, high=clip_high, **tokens),
        aggregation=use(aggregation.token_mean),
    )
