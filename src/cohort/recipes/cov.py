"""Clip-Cov and KL-Cov: The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models. arXiv:2505.22617.

Code PRIME-RL/Entropy-Mechanism-of-RL. Confidence: exact.

The change of entropy in a step is minus the covariance of log-probability and advantage, and few tokens carry most of it.
Holding these back keeps the entropy. Over all own tokens of the minibatch, n = max(1, int(fraction tokens)):

    cov_it = (A_it - mean A)(logp_it - mean logp), without gradient
    clip-cov   n tokens drawn among those with cov_low < cov < cov_high that the clip does not hold have no loss
    kl-cov     -A rho without a clip, plus drift_coef |logp - old_logp| on the n tokens of the largest cov

The divisor counts all tokens. On policy |logp - old_logp| has no gradient, so kl-cov acts from a step's second update on.

Defaults: clip-cov 2e-4 within (1, 5), clip 0.2; kl-cov 2e-3 (7B; 2e-4 for 32B), coefficient 1. The authors' own option is a
percentage.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.seeds import generator
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs

VARIANTS = ("clip-cov", "kl-cov")


def covariance(batch: Batch, advantages: Tensor) -> Tensor:
    """[N, T] cov, 0 at masked positions."""
    logp = batch.logp.detach()
    if not bool(batch.mask.any()):
        return torch.zeros_like(logp)
    out = (advantages - advantages[batch.mask].mean()) * (logp - logp[batch.mask].mean())
    return torch.where(batch.mask, out, torch.zeros_like(out))


def smallest(keys: Tensor, among: Tensor, count: int) -> Tensor:
    """[N, T] bool: the `count` places of the smallest keys among some, or all of these."""
    rows = among.flatten().nonzero()[:, 0]
    out = torch.zeros_like(among).flatten()
    out[rows[keys.flatten()[rows].argsort(stable=True)[:count]]] = True
    return out.view_as(among)


def chosen(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    noise: Tensor,
    *,
    variant: str,
    fraction: float,
    cov_low: float,
    cov_high: float,
    low: float,
    high: float,
) -> Tensor:
    """[N, T] bool: the tokens that are held back; `noise` [N, T] draws them among those of the band (clip-cov)."""
    cov, count = covariance(batch, advantages), max(1, int(fraction * int(batch.mask.sum())))
    if variant == "kl-cov":
        return smallest(-cov, batch.mask, count)
    held = clipped(ratio, advantages, low, high) > -ratio * advantages
    return smallest(noise, batch.mask & (cov > cov_low) & (cov < cov_high) & ~held, count)


@needs("old_logp")
@declare(couples=True)
def covariance_held(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    variant: str = "clip-cov",
    fraction: float = 2e-4,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
    low: float = 0.2,
    high: float = 0.2,
    drift_coef: float = 1.0,
    info: StepInfo,
) -> Tensor:
    """The clipped loss without the chosen tokens, or the unclipped one with a penalty on them: [N, T]. arXiv:2505.22617."""
    noise = torch.rand(batch.mask.shape, generator=generator(info.seed, info.step, "cov")).to(batch.device)
    noise = batch["noise"] if "noise" in batch else noise
    bounds = {"cov_low": cov_low, "cov_high": cov_high, "low": low, "high": high}
    held = chosen(batch, ratio, advantages, noise, variant=variant, fraction=fraction, **bounds)
    if variant == "kl-cov":
        return -advantages * ratio + drift_coef * held * (batch.logp - batch.old_logp).abs()
    return clipped(ratio, advantages, low, high).masked_fill(held, 0.0)


@recipe(
    title="The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
    paper="arXiv:2505.22617",
    idea="the few tokens of the largest covariance, which cost the entropy, are held back",
    confidence="exact",
)
def cov(
    *,
    variant: Annotated[str, VARIANTS] = "clip-cov",
    fraction: Annotated[float | None, "(0, 1]"] = None,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    drift_coef: Annotated[float, "[0, inf)"] = 1.0,
) -> Method:
    fraction = fraction or (2e-4 if variant == "clip-cov" else 2e-3)
    band = {"cov_low": cov_low, "cov_high": cov_high, "low": clip_low, "high": clip_high}
    hold = use(covariance_held, variant=variant, fraction=fraction, drift_coef=drift_coef, **band)
    return Method(surrogate=hold, aggregation=use(aggregation.token_mean))
