"""DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization. arXiv:2510.04474.

Code Optimization-AI/DRPO. Confidence: exact.

DisCO, with correct rollouts weighted by their length, so that a long correct one is never pushed down as by a length
penalty in a normalised reward:

    r_i  = 1 - L_i / C,   w_i = exp(r_i / lambda) / sum of the same over the correct rollouts of the question
    J_q  = sum_{i in pos} w_i s_i - tau log mean_{j in neg} exp(s_j / tau),   s_i = mean_t logp_it
    K    = mean over all tokens of (old_logp - logp)
    loss = -(1/Q) sum over questions with both outcomes of J_q + (kl_beta / 2) max(K - kl_delta, 0)^2

Rewards are 0 or 1 (`threshold` makes graded ones so). Q counts all questions; a rollout without tokens belongs to
neither side. A question with one outcome contributes nothing, so that the easiest ones exert no pressure on lengths.

Defaults: lambda 0.1 (released models; null is DisCO), tau 10, kl_delta 1e-4, kl_beta 1e3. C is the generation budget.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import binary, contrast, kl_hinge
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_sum, token_mean
from cohort.types import Batch, StepInfo, generation_budget
from cohort.types.declare import declare, needs


def length_reward(batch: Batch, *, max_len: int) -> Tensor:
    """1 - L_i / C: [N]."""
    return 1 - batch.lengths / max_len


def preference_weights(batch: Batch, correct: Tensor, preference: Tensor, *, scale: float | None) -> Tensor:
    """[N] softmax of preference / scale over the correct rollouts of each group that have tokens; 0 for the others.

    Args:
        correct: [N] bool.
        preference: [N], larger is better.
        scale: None weighs all equally.
    """
    groups, kept = batch.groups, correct & batch.mask.any(1)
    exponent = preference / scale if scale is not None else torch.zeros_like(preference)
    exponent = torch.where(kept, exponent, torch.full_like(exponent, -torch.inf))
    top = group_max(exponent, groups)[groups.index]
    share = torch.where(kept, exponent - top, torch.full_like(exponent, -torch.inf)).exp()
    total = group_sum(share, groups)[groups.index]
    return torch.where(kept, share / total, torch.zeros_like(share))


@needs("old_logp")
@declare(couples=True, group_size=2, offline=True)
def decoupled(
    batch: Batch,
    *,
    length_weight_lambda: float | None = 0.1,
    max_len: int | None = None,
    tau: float = 10.0,
    kl_delta: float = 1e-4,
    kl_beta: float = 1e3,
    threshold: float | None = None,
    info: StepInfo,
) -> Tensor:
    """-(1/Q) sum_q [sum_pos w_i s_i - tau log mean_neg exp(s_j / tau)] + hinge on the KL: scalar. Source: arXiv:2510.04474."""
    correct = binary(batch.rewards, threshold, "drpo")
    shorter = length_reward(batch, max_len=max_len or generation_budget(info))
    weights = preference_weights(batch, correct, shorter, scale=length_weight_lambda)
    objective, _ = contrast(token_mean(batch.logp, batch.mask), correct, batch, tau=tau, weights=weights)
    _, penalty = kl_hinge(batch, delta=kl_delta, beta=kl_beta)
    return penalty - objective


@recipe(
    title="DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization",
    paper="arXiv:2510.04474",
    idea="rank right above wrong rollouts, the shorter right ones higher",
    confidence="exact",
)
def drpo(
    *,
    length_weight_lambda: Annotated[float | None, "(0, inf]"] = 0.1,
    max_len: Annotated[int | None, "[1, inf)"] = None,
    tau: Annotated[float, "(0, inf)"] = 10.0,
    kl_delta: Annotated[float, "[0, inf)"] = 1e-4,
    kl_beta: Annotated[float, "[0, inf)"] = 1e3,
    threshold: Annotated[float | None, "(-inf, inf)"] = None,
) -> Method:
    length = {"length_weight_lambda": length_weight_lambda, "max_len": max_len}
    hinge = {"kl_delta": kl_delta, "kl_beta": kl_beta}
    return Method(objective=use(decoupled, tau=tau, threshold=threshold, **length, **hinge))
