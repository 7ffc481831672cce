"""GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization.

arXiv:2601.05242, code NVlabs/GDPO. Confidence: exact.

Every reward component is normalised by itself in the group, so that none is drowned by the others:

    a_ik = (R_ik - mean_g R_k) / (std_g R_k + eps)
    a_i  = sum_k w_k a_ik
    A_i  = (a_i - mean_batch a) / (std_batch a + eps)

Conditioned reward: `condition=(k, l, t)` replaces R_k by 0 where R_l < t, so that an easy reward needs the hard one.

Defaults: sample standard deviation, eps 1e-4, batch normalisation on (official code). A component that does not apply
counts as 0, as there; `missing="skip"` leaves it out of mean and standard deviation. Weights are those of the rewards.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes.advantage import decoupled, weighted_sum
from cohort.methods import Method, Stage, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, StepInfo
from cohort.types.declare import needs


@needs("reward_components")
def conditioned(batch: Batch, *, target: int, condition_on: int, threshold: float, info: StepInfo) -> Batch:
    """The batch with component `target` set to 0 where component `condition_on` is below the threshold."""
    components = batch["reward_components"].clone()
    components[components[:, condition_on] < threshold, target] = 0.0
    rewards = weighted_sum(components.nan_to_num(0.0), None, info)
    return batch.replace(reward_components=components, rewards=rewards)


@recipe(
    title="GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL Optimization",
    paper="arXiv:2601.05242",
    idea="normalise every reward component by itself before adding them",
    confidence="exact",
)
def gdpo(
    *,
    weights: tuple[float, ...] | None = None,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-4,
    std_ddof: Annotated[int, (0, 1)] = 1,
    batch_norm: bool = True,
    missing: Annotated[str, ("zero", "skip")] = "zero",
    condition: tuple[int, int, float] | None = None,
) -> Method:
    shape: tuple[Stage, ...] = ()
    if condition is not None:
        target, condition_on, threshold = condition
        shape = (use(conditioned, target=target, condition_on=condition_on, threshold=threshold),)
    how = {"eps": adv_eps, "ddof": std_ddof, "batch_norm": batch_norm, "missing": missing}
    return Method(shaping=shape, advantage=use(decoupled, weights=tuple(weights) if weights else None, **how))
