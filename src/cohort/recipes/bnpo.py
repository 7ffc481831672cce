"""BNPO: Beta Normalization Policy Optimization. arXiv:2506.02864.

Code changyi7231/BNPO. Confidence: exact; the fallback for prompts of equal success rates is ours.

The normaliser of the advantage follows the distribution of success rates over the prompts of the batch, to which a
Beta distribution is fitted by its moments:

    r    = (reward - reward_min) / (reward_max - reward_min),   p_g = mean_g r
    c    = mu (1 - mu) / v - 1,   a = c mu,   b = c (1 - mu)          mu, v: mean and sample variance of p over prompts
    W_g  = min(1 / f(p_g), weight_cap),   f = density of Beta(max(1, 1 + a/3), max(1, 1 + b/3))
    A_i  = W_g (r_i - p_g)

This choice of the two parameters minimises the variance of the gradient. Both 1: REINFORCE with a baseline; both 3/2:
GRPO times pi/8. One prompt, or v < 1e-12: both are 1. Nothing is carried from batch to batch.

`decompose=True` does all this with every reward component by itself and averages: sum_k w_k A^(k) / sum_k |w_k|, which
is the paper's plain mean for equal weights. A component that does not apply to a rollout says nothing about it.

Defaults: rewards in [0, 1], cap 1e6 (official code). A reward beyond the range counts as its end.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_min, group_sum
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


def mapped(values: Tensor, *, reward_min: float, reward_max: float) -> Tensor:
    """Rewards with reward_min at 0 and reward_max at 1; those beyond count as the end of the range."""
    return ((values - reward_min) / (reward_max - reward_min)).clamp(0, 1)


def success_rates(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(p [P, K], there [P, K] bool): mean of values [N, K] in each group, and whether it holds any; NaN is left out."""
    here = ~values.isnan()
    count = group_sum(here.to(values.dtype), batch.groups)
    return group_sum(values.nan_to_num(0.0), batch.groups) / count.clamp(min=1), count > 0


def fitted(p: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (a, b) [K] of the Beta distribution of success rates p [P, K]; 0 where these do not differ."""
    count = there.sum(0).to(p.dtype)
    mu = torch.where(there, p, 0.0).sum(0) / count.clamp(min=1)
    v = torch.where(there, (p - mu) ** 2, 0.0).sum(0) / (count - 1).clamp(min=1)
    c = torch.where(v < 1e-12, torch.zeros_like(v), mu * (1 - mu) / v.clamp(min=1e-12) - 1)
    return c * mu, c * (1 - mu)


def parameters(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, beta) of the normaliser, from the moments: max(1, 1 + a/3) and max(1, 1 + b/3)."""
    return (1 + a / 3).clamp(min=1), (1 + b / 3).clamp(min=1)


def weights(p: Tensor, alpha: Tensor, beta: Tensor, *, cap: float = 1e6) -> Tensor:
    """min(1 / f(p; alpha, beta), cap), f the density of the Beta distribution, of the shape of p."""
    # Where success rates hardly differ the parameters are huge, and float32 would lose their difference.
    x, a, b = (value.to("cpu", torch.float64) for value in (p, alpha, beta))
    log_f = torch.xlogy(a - 1, x) + torch.xlogy(b - 1, 1 - x) + torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    return (-log_f).exp().clamp(max=cap).to(p)


def normalised(
    values: Tensor, batch: Batch, *, cap: float = 1e6, alpha_beta: tuple[float, float] | None = None
) -> Tensor:
    """W_g (r_i - p_g) for values [N, K] in [0, 1], each column by itself; 0 in flat groups and where NaN."""
    index = batch.groups.index
    p, there = success_rates(values, batch)
    if alpha_beta is None:
        alpha, beta = parameters(*fitted(p, there))
    else:
        alpha, beta = (torch.full_like(p[:1], x) for x in alpha_beta)
    top = group_max(values.nan_to_num(-torch.inf), batch.groups)
    flat = top <= group_min(values.nan_to_num(torch.inf), batch.groups)
    advantages = weights(p, alpha, beta, cap=cap)[index] * (values - p[index])
    return torch.where(flat[index] | values.isnan(), torch.zeros_like(values), advantages)


@needs(reward_components=lambda decompose: decompose)
@declare(group_size=2)
def beta_normalised(
    batch: Batch,
    *,
    reward_min: float = 0.0,
    reward_max: float = 1.0,
    weight_cap: float = 1e6,
    alpha_beta: tuple[float, float] | None = None,
    decompose: bool = False,
    info: StepInfo,
) -> Tensor:
    """A_i = W_g (r_i - p_g): [N]. Source: arXiv:2506.02864."""
    values = batch["reward_components"] if decompose else batch.rewards[:, None]
    values = mapped(values, reward_min=reward_min, reward_max=reward_max)
    each = normalised(values, batch, cap=weight_cap, alpha_beta=alpha_beta)
    shares = (info.reward_weights if decompose else None) or (1.0,) * each.shape[1]
    share = torch.tensor(shares, dtype=each.dtype, device=each.device)
    return each @ (share / share.abs().sum().clamp(min=1e-12))


@recipe(
    title="BNPO: Beta Normalization Policy Optimization",
    paper="arXiv:2506.02864",
    idea="advantages normalised by a Beta density fitted to the batch's success rates",
    confidence="exact",
)
def bnpo(
    *,
    reward_min: Annotated[float, "(-inf, inf)"] = 0.0,
    reward_max: Annotated[float, "(-inf, inf)"] = 1.0,
    weight_cap: Annotated[float, "(0, inf)"] = 1e6,
    alpha_beta: tuple[float, float] | None = None,
    decompose: bool = False,
) -> Method:
    if not reward_min < reward_max:
        raise MethodError(f"'bnpo': reward_min={reward_min:g} must be below reward_max={reward_max:g}")
    if alpha_beta is not None and (len(alpha_beta) != 2 or min(alpha_beta) <= 0):
        raise MethodError(f"'bnpo': alpha_beta={alpha_beta!r} must be two positive numbers, or None to fit them")
    fixed = tuple(alpha_beta) if alpha_beta is not None else None
    how = {"reward_min": reward_min, "reward_max": reward_max, "weight_cap": weight_cap}
    return Method(advantage=use(beta_normalised, alpha_beta=fixed, decompose=decompose, **how))
