"""UCPO: Uniform-Correct Policy Optimization: Breaking RLVR's Indifference to Diversity. arXiv:2605.00365.

Code AnamikaLochab/UCPO. Confidence: exact (the released configuration, without its dual clip); for graded rewards each
rollout's own advantage is weighted, where the code takes that of the first correct one.

    A_i = (r_i - mean_g r) / (std_g r + 1e-8)                   sample standard deviation
    q_i = exp(l_i) / sum_{j in C} exp(l_j),  l_i = mean_t old_logp_it,  C = {r_i > 0} of the group
    w_i = (1 - tau) + tau n u_i,  u_i = (1 / max(q_i, q_min)) / sum_{j in C} (1 / max(q_j, q_min)),  n = |C|
    A_i <- A_i w_i for i in C, if n >= 2                                                         variant="inverse"
    A_i <- A_i + tau (-log q_i - H(q)) for i in C, if n >= 2                                     variant="centred-surprisal"

The first keeps the sum of the advantages of C and gives nothing to a group that is all correct; the second still moves
mass there. Wrong rollouts keep their advantage.

Defaults: tau 0.2, q_min 1e-6 (released runs).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_sum, token_mean
from cohort.types import Batch
from cohort.types.declare import declare, needs


def correct_set(batch: Batch) -> tuple[Tensor, Tensor]:
    """inside [N] bool: correct, and not the only correct one of its group; n [N]: correct rollouts of the group."""
    correct = batch.rewards > 0
    n = group_sum(correct.to(batch.rewards.dtype), batch.groups)[batch.groups.index]
    return correct & (n >= 2), n


def log_share(batch: Batch, inside: Tensor) -> Tensor:
    """[N] log q_i over the rollouts `inside` of each group; 0 for the others."""
    groups, level = batch.groups, token_mean(batch.old_logp, batch.mask)
    inner = torch.where(inside, level, torch.full_like(level, -torch.inf))
    top = group_max(inner, groups)
    shifted = torch.where(inside, level - top.nan_to_num(neginf=0.0)[groups.index], torch.zeros_like(level))
    total = group_sum(inside * shifted.exp(), groups)[groups.index]
    return torch.where(inside, shifted - total.clamp(min=1e-30).log(), torch.zeros_like(level))


def uniform_weights(batch: Batch, *, tau: float, q_min: float) -> Tensor:
    """[N] w_i of the correct rollouts, mean 1 over those of a group; 1 for all others."""
    inside, n = correct_set(batch)
    inverse = inside / log_share(batch, inside).exp().clamp(min=q_min)
    total = group_sum(inverse, batch.groups).clamp(min=1)[batch.groups.index]
    return torch.where(inside, 1 - tau + tau * n * inverse / total, torch.ones_like(inverse))


def centred_surprisal(batch: Batch) -> Tensor:
    """[N] -log q_i - H(q) of the correct rollouts, whose mean under q is 0; 0 for all others."""
    inside, _ = correct_set(batch)
    log_q = log_share(batch, inside)
    entropy = group_sum(inside * log_q.exp() * -log_q, batch.groups)[batch.groups.index]
    return torch.where(inside, -log_q - entropy, torch.zeros_like(log_q))


@needs("old_logp")
@declare(group_size=2)
def uniform_correct(
    batch: Batch, *, variant: str = "inverse", tau: float = 0.2, q_min: float = 1e-6, eps: float = 1e-8, ddof: int = 1
) -> Tensor:
    """A_i w_i, or A_i + tau (-log q_i - H(q)), for the correct rollouts; A_i for wrong ones: [N].

    Source: arXiv:2605.00365.
    """
    base = advantage.zscore(batch, eps=eps, ddof=ddof)
    if variant == "inverse":
        return base * uniform_weights(batch, tau=tau, q_min=q_min)
    return base + tau * centred_surprisal(batch)


@recipe(
    title="Uniform-Correct Policy Optimization: Breaking RLVR's Indifference to Diversity",
    paper="arXiv:2605.00365",
    idea="among correct rollouts the less likely are reinforced more",
    confidence="exact",
)
def ucpo(
    *,
    variant: Annotated[str, ("inverse", "centred-surprisal")] = "inverse",
    tau: Annotated[float, "[0, 1]"] = 0.2,
    q_min: Annotated[float, "(0, 1)"] = 1e-6,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-8,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    return Method(advantage=use(uniform_correct, variant=variant, tau=tau, q_min=q_min, eps=adv_eps, ddof=std_ddof))
