"""RLOO: Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs.

arXiv:2402.14740 (estimator of Kool et al. 2019). Confidence: exact; the clipped form follows public trainers.

    R_i  = r_i - beta sum_t (old_logp_it - ref_logp_it)
    A_i  = R_i - mean of R over the other rollouts of the group
    loss = -(1/N) sum_i A_i sum_t logp_it                                        ratio="none"
    loss = -(1/N) sum_i min(s_i A_i, clip(s_i) A_i),  s_i = exp sum_t (logp - old_logp)      ratio="sequence-sum"

Defaults: beta lies in the paper's range 0.03 to 0.1, which it tunes by task; clip 0.2.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, aggregation, shaping, surrogate
from cohort.axes import ratio as ratios
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    paper="arXiv:2402.14740",
    idea="REINFORCE on whole rollouts with the other rollouts as baseline",
    confidence="exact",
)
def rloo(
    *,
    kl_beta: Annotated[float, "[0, inf)"] = 0.05,
    ratio: Annotated[str, ("none", "sequence-sum")] = "none",
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    pure = ratio == "none"
    return Method(
        shaping=(use(shaping.kl_in_reward, beta=kl_beta),) if kl_beta else (),
        advantage=use(advantage.leave_one_out),
        ratio=use(ratios.none if pure else ratios.sequence_product),
        surrogate=use(surrogate.reinforce) if pure else use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.token_sum if pure else aggregation.sequence_mean),
    )
