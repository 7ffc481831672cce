"""COPO: Consistency-Aware Policy Optimization. arXiv:2508.04138.

Code hijih/copo-code. Confidence: reconstructed. Known: a global advantage between prompts, the entropy of a prompt's
final answers, the sigmoid blend. Inferred: the prompt's return is its mean reward, natural logarithm, population
standard deviation, that losses are blended rather than advantages.

    A_loc  = (r_i - mean_g r) / (std_g r + eps)
    R_q    = mean_g r,   A_glob = (R_q - mean_B R) / (std_B R + eps)                    B: the prompts of the batch
    H_q    = -sum over answers a of f_a ln f_a,   f_a = share of the group that answers a
    w_q    = sigmoid(gamma (H_q - rho))
    loss   = w_q l(rho_it, A_loc) + (1 - w_q) l(rho_it, A_glob),   l the clipped surrogate

A group whose rollouts answer alike learns from the comparison with other prompts, and so is not lost where its rewards
are equal. "No answer" counts as one answer. A_loc is whatever the advantage and credit axes give; blend="advantages"
puts w A_loc + (1 - w) A_glob into any surrogate instead, the same on-policy.

Defaults: gamma 20, rho 1.5 (paper; the group needs more than e^rho rollouts, or A_loc never counts), clip 0.2.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, surrogate
from cohort.axes.advantage import standardise
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean
from cohort.signals.votes import answer_entropy, answer_ids
from cohort.types import Batch, Groups
from cohort.types.declare import declare, hooks, needs


def disagreement(batch: Batch) -> Tensor:
    """[P] H_q in nats; rollouts without an answer share one."""
    return answer_entropy(batch["answer_id"] + 1, batch.groups, batch.rewards.dtype)


def local_weight(entropy: Tensor, *, gamma: float, rho: float) -> Tensor:
    """w = sigmoid(gamma (H - rho)), of H's shape."""
    return torch.sigmoid(gamma * (entropy - rho))


def between_prompts(batch: Batch, *, eps: float, ddof: int) -> Tensor:
    """[N] A_glob; 0 where all prompts have the same return."""
    returns = group_mean(batch.rewards, batch.groups)
    together = Groups(torch.zeros_like(batch.groups.labels), torch.zeros_like(batch.groups.labels[:1]))
    return standardise(returns, together, eps=eps, ddof=ddof)[batch.groups.index]


def signals(batch: Batch, *, gamma: float = 20.0, rho: float = 1.5, eps: float = 1e-6, ddof: int = 0) -> Batch:
    """The batch with `global_advantage` and `local_weight`, each [N]."""
    weight = local_weight(disagreement(batch), gamma=gamma, rho=rho)[batch.groups.index]
    return batch.with_rollouts(global_advantage=between_prompts(batch, eps=eps, ddof=ddof), local_weight=weight)


@needs("answer_id")
@hooks(on_scored=answer_ids, on_advantages=signals)
@declare(provides=("answer_id",))
def blended_clip(batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """w l(rho, A) + (1 - w) l(rho, A_glob), each part clipped by itself: [N, T]. Source: arXiv:2508.04138."""
    weight, between = batch["local_weight"][:, None], batch["global_advantage"][:, None]
    return weight * clipped(ratio, advantages, low, high) + (1 - weight) * clipped(ratio, between, low, high)


@needs("answer_id")
@hooks(on_scored=answer_ids)
@declare(provides=("answer_id",))
def blended_advantage(
    batch: Batch, advantages: Tensor, *, gamma: float = 20.0, rho: float = 1.5, eps: float = 1e-6, ddof: int = 0
) -> Tensor:
    """w A + (1 - w) A_glob: [N, T]. Source: arXiv:2508.04138."""
    batch = signals(batch, gamma=gamma, rho=rho, eps=eps, ddof=ddof)
    weight, between = batch["local_weight"][:, None], batch["global_advantage"][:, None]
    return weight * advantages + (1 - weight) * between


@recipe(
    title="Consistency-Aware Policy Optimization",
    paper="arXiv:2508.04138",
    idea="groups that answer alike learn from the comparison between prompts",
    confidence="reconstructed: prompt return, standard deviation and eps, blending of losses",
)
def copo(
    *,
    gamma: Annotated[float, "[0, inf)"] = 20.0,
    rho: Annotated[float, "[0, inf)"] = 1.5,
    blend: Annotated[str, ("loss", "advantages")] = "loss",
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
) -> Method:
    local = use(advantage.zscore, eps=adv_eps, ddof=std_ddof)
    how = {"gamma": gamma, "rho": rho, "eps": adv_eps, "ddof": std_ddof}
    if blend == "loss":
        return Method(advantage=local, surrogate=use(blended_clip, low=clip_low, high=clip_high, **how))
    clip = use(surrogate.ppo_clip, low=clip_low, high=clip_high)
    return Method(advantage=local, credit=(use(blended_advantage, **how),), surrogate=clip)
