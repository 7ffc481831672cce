"""GSPO: Group Sequence Policy Optimization. arXiv:2507.18071. Confidence: exact.

The reward is given to a sequence, so the ratio and the clip are per sequence too:

    s_i  = exp( (1/L_i) sum_t (logp_it - old_logp_it) )
    loss = -(1/N) sum_i min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i)

level="sequence-token" is GSPO-token: the same value, the gradient to each token by itself, for advantages that differ
within a rollout. Defaults: the paper's bounds, small because s_i is normalised by length.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import aggregation, ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Group Sequence Policy Optimization",
    paper="arXiv:2507.18071",
    idea="one length-normalised importance ratio and clip per rollout",
    confidence="exact",
)
def gspo(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 3e-4,
    clip_high: Annotated[float, "[0, inf)"] = 4e-4,
    level: Annotated[str, ("sequence", "sequence-token")] = "sequence",
) -> Method:
    return Method(
        ratio=use(ratio.sequence, gradient="sequence" if level == "sequence" else "token"),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        # The mean of equal token losses over a rollout is the loss of the rollout.
        aggregation=use(aggregation.sequence_mean),
    )
