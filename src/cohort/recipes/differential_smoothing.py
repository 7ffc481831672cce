"""DS-GRPO: Differential Smoothing Mitigates Sharpening and Improves LLM Reasoning. arXiv:2511.19942.

Confidence: exact (equations 4 and 6). The paper's values of the two weights were not found.

    A_i = (r_i - mean_g r) / (std_g r + eps),   log pi(y_i) = sum_t old_logp_it
    A_i - gamma_p log pi(y_i)  if r_i > 0,   A_i + gamma_n log pi(y_i)  otherwise            form="advantage"
    r_i - gamma_p log ref(y_i) if r_i > 0,   r_i + gamma_n log ref(y_i) otherwise            form="reward"

Among correct rollouts the rarer gains more, which keeps several solutions alive; among wrong ones the rarer loses more.
form="reward" is the one that the theory analyses: the reference policy scores, and the group normalises afterwards.

The term grows with length, so choose the weights such that gamma |log pi| of a typical rollout stays below 1; the
defaults (the specification's, 0.02 and 0.01) suit rollouts of some ten tokens. gamma_n = 0 leaves wrong rollouts alone.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_sum
from cohort.types import Batch
from cohort.types.declare import needs


def smooth(values: Tensor, rewards: Tensor, logp: Tensor, *, gamma_p: float, gamma_n: float) -> Tensor:
    """[N] values - gamma_p log pi where the reward is above 0, values + gamma_n log pi elsewhere."""
    return values + torch.where(rewards > 0, -gamma_p, gamma_n).to(values.dtype) * logp


@needs("old_logp")
def smoothed_advantage(
    batch: Batch, *, gamma_p: float = 0.02, gamma_n: float = 0.01, eps: float = 1e-6, ddof: int = 0
) -> Tensor:
    """(r_i - mean) / (std + eps), minus gamma_p log pi_old(y_i) if correct, plus gamma_n log pi_old(y_i) if not.

    Returns:
        [N]; the term stands alone in a group of one or of equal rewards.

    Source: arXiv:2511.19942.
    """
    base = advantage.zscore(batch, eps=eps, ddof=ddof)
    logp = token_sum(batch.old_logp, batch.mask)
    return smooth(base, batch.rewards, logp, gamma_p=gamma_p, gamma_n=gamma_n)


@needs("ref_logp")
def smoothed_reward(batch: Batch, *, gamma_p: float = 0.02, gamma_n: float = 0.01) -> Tensor:
    """r_i - gamma_p log ref(y_i) if correct, r_i + gamma_n log ref(y_i) if not: [N]. Source: arXiv:2511.19942."""
    logp = token_sum(batch.ref_logp, batch.mask)
    return smooth(batch.rewards, batch.rewards, logp, gamma_p=gamma_p, gamma_n=gamma_n)


@recipe(
    title="Differential Smoothing Mitigates Sharpening and Improves LLM Reasoning",
    paper="arXiv:2511.19942",
    idea="a bonus for rare correct rollouts, a malus for rare wrong ones",
    confidence="exact",
)
def differential_smoothing(
    *,
    gamma_p: Annotated[float, "[0, inf)"] = 0.02,
    gamma_n: Annotated[float, "[0, inf)"] = 0.01,
    form: Annotated[str, ("advantage", "reward")] = "advantage",
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
) -> Method:
    weights = {"gamma_p": gamma_p, "gamma_n": gamma_n}
    if form == "reward":
        return Method(
            shaping=(use(smoothed_reward, **weights),), advantage=use(advantage.zscore, eps=adv_eps, ddof=std_ddof)
        )
    return Method(advantage=use(smoothed_advantage, eps=adv_eps, ddof=std_ddof, **weights))
