"""LUSPO: Length-Unbiased Sequence Policy Optimization. arXiv:2602.05261, code murphy4122/luspo.

Confidence: exact as to TRL's implementation; the authors' repository could not be read.

GSPO divides the gradient of a rollout among its tokens, so that training drifts to short answers. Every rollout counts by
its length:

    s_i  = exp( (1/L_i) sum_t (logp_it - old_logp_it) )
    loss = -(1/N) sum_i L_i min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i)

Gradients are L_i times GSPO's: learning rate and gradient clipping do not carry over. Defaults: 2e-3, 2.5e-3 (section 5.1).
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import aggregation, ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Length-Unbiased Sequence Policy Optimization: Revealing and Controlling Response Length Variation in RLVR",
    paper="arXiv:2602.05261",
    idea="GSPO in which a rollout counts by its length",
    confidence="exact",
)
def luspo(*, clip_low: Annotated[float, "[0, 1]"] = 2e-3, clip_high: Annotated[float, "[0, inf)"] = 2.5e-3) -> Method:
    return Method(
        ratio=use(ratio.sequence),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        # The sum of L_i equal token losses.
        aggregation=use(aggregation.token_sum),
    )
