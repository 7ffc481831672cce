"""Dr. GRPO: Understanding R1-Zero-Like Training: A Critical Perspective. arXiv:2503.20783. Confidence: exact.

Dividing by a rollout's length favours short correct and long wrong answers; dividing by the group's standard deviation
overweights very easy and very hard prompts. Both divisions go:

    A_i  = r_i - mean_g r
    loss = 1/(N L_max) sum_i sum_t -min(rho A_i, clip(rho, 1 - eps, 1 + eps) A_i)

Defaults: clip 0.2 and no KL are the paper's; L_max is the generation budget (3000 in the paper).
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Understanding R1-Zero-Like Training: A Critical Perspective",
    paper="arXiv:2503.20783",
    idea="no division by length or standard deviation",
    confidence="exact",
)
def dr_grpo(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    max_tokens: Annotated[int | None, "[1, inf)"] = None,
) -> Method:
    return Method(
        advantage=use(advantage.centred),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.constant, max_tokens=max_tokens),
    )
