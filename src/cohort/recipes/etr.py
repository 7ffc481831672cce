"""ETR: Outcome-Guided Elastic Trust Regions for Policy Optimization. arXiv:2601.03723.

Confidence: reconstructed. Known: clip bounds that scale with |A| and with the group's variance. Inferred: the functions
below and every hyperparameter's value.

    scale_i = clip( (1 + alpha (|A_i| - 1)) (1 + beta (2 V_g / V_max - 1)), scale_min, scale_max )
    l_it    = -min(rho A_i, clip(rho, 1 - scale_i clip_low, 1 + scale_i clip_high) A_i)

V_g is the population variance of the group's rewards, V_max = (reward_range / 2)^2 its largest possible value.

Defaults: clip 0.2 (base); alpha 0.5, beta 0.5 and scale in [0.25, 3] are the specification's, not the paper's.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes.surrogate import clipped
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_std
from cohort.types import Batch
from cohort.types.declare import hooks


def elastic_bounds(
    batch: Batch,
    *,
    low: float = 0.2,
    high: float = 0.2,
    alpha: float = 0.5,
    beta: float = 0.5,
    scale_min: float = 0.25,
    scale_max: float = 3.0,
    reward_range: float = 1.0,
) -> Batch:
    """The batch with the rollout's advantage scaled into bounds `region_scale`, `clip_low`, `clip_high`, each [N, T].

    Per token, since credit may have given the tokens of a rollout different advantages.
    """
    variance = (group_std(batch.rewards, batch.groups) ** 2)[batch.groups.index]
    macro = 1 + beta * (2 * variance / (reward_range / 2) ** 2 - 1)
    micro = 1 + alpha * (batch.advantages.abs() - 1)
    scale = (micro * macro[:, None]).clamp(scale_min, scale_max)
    return batch.with_tokens(region_scale=scale, clip_low=scale * low, clip_high=scale * high)


@hooks(on_advantages=elastic_bounds)
def elastic_clip(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """l_it = -min(rho A, clip(rho, 1 - clip_low_it, 1 + clip_high_it) A): [N, T]. Source: arXiv:2601.03723."""
    return clipped(ratio, advantages, batch["clip_low"], batch["clip_high"])


@recipe(
    title="ETR: Outcome-Guided Elastic Trust Regions for Policy Optimization",
    paper="arXiv:2601.03723",
    idea="wider clip for strong outcome signals and prompts of medium difficulty",
    confidence="reconstructed: the scaling functions and all values",
)
def etr(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    alpha: Annotated[float, "[0, inf)"] = 0.5,
    beta: Annotated[float, "[0, 1]"] = 0.5,
    scale_min: Annotated[float, "(0, inf)"] = 0.25,
    scale_max: Annotated[float, "(0, inf)"] = 3.0,
    reward_range: Annotated[float, "(0, inf)"] = 1.0,
) -> Method:
    if scale_max * clip_low >= 1:
        raise MethodError(
            f"'etr': scale_max * clip_low = {scale_max * clip_low:g} must stay below 1; lower one of them"
        )
    shape = {"alpha": alpha, "beta": beta, "scale_min": scale_min, "scale_max": scale_max}
    return Method(surrogate=use(elastic_clip, low=clip_low, high=clip_high, reward_range=reward_range, **shape))
