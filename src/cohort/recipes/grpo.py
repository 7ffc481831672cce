"""GRPO: Group Relative Policy Optimization (DeepSeekMath: Pushing the Limits of Mathematical Reasoning).

arXiv:2402.03300 (also DeepSeek-R1, arXiv:2501.12948). Confidence: exact; eps, the population standard deviation and
the treatment of empty rollouts are conventions, and frameworks differ in them.

    A_i  = (r_i - mean_g r) / (std_g r + eps)
    rho  = exp(logp - old_logp)
    loss = (1/N) sum_i (1/L_i) sum_t [ -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + beta k3 ]
    k3   = exp(ref - logp) - (ref - logp) - 1

With process supervision, steps end at tokens e_ij with rewards s_ij, and A_it is the sum of the normalised rewards of
the steps that end at or after t (`process_advantages`).

Defaults: clip 0.2 and beta 0.04 are the paper's (group size 64 and learning rate 1e-6 go with them).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, ratio, regularizer, surrogate
from cohort.axes.advantage import standardise
from cohort.axes.aggregation import BY_NAME
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import declare, needs


@needs("step_rewards", "step_end")
@declare(group_size=2)
def process_advantages(batch: Batch, *, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """A_it = sum over the steps j of rollout i that end at t or later of (s_ij - mean) / (std + eps).

    Mean and standard deviation are over all step rewards of the group. `step_rewards` is [N, J]; `step_end` [N, J] is
    the index of the last token of each step, -1 where a rollout has fewer than J steps.

    Returns:
        [N, T].

    Source: arXiv:2402.03300, section 4.1.3.
    """
    scores, ends = batch["step_rewards"], batch["step_end"]
    present = ends >= 0
    rows = batch.groups.index[:, None].expand_as(scores)[present]
    groups = type(batch.groups)(rows, batch.groups.labels)
    normal = torch.zeros_like(scores)
    normal[present] = standardise(scores[present], groups, eps=eps, ddof=ddof)
    at_end = torch.zeros(batch.mask.shape, dtype=scores.dtype, device=batch.device)
    at_end = at_end.scatter_add(1, ends.clamp(min=0), torch.where(present, normal, torch.zeros_like(normal)))
    return at_end.flip(1).cumsum(1).flip(1)


@recipe(
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    paper="arXiv:2402.03300",
    idea="the mean reward of a group of rollouts replaces PPO's value network",
    confidence="exact",
)
def grpo(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
    kl: Annotated[str, ("k1", "k2", "k3")] = "k3",
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
    aggregation: Annotated[str, tuple(BY_NAME)] = "seq",
    supervision: Annotated[str, ("outcome", "process")] = "outcome",
) -> Method:
    estimate = process_advantages if supervision == "process" else advantage.zscore
    return Method(
        advantage=use(estimate, eps=adv_eps, ddof=std_ddof),
        ratio=use(ratio.token),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator=kl),) if kl_beta else (),
        aggregation=use(BY_NAME[aggregation]),
    )
