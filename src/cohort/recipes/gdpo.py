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

import torch
from torch import Tensor

from cohort.axes.advantage import standardise
from cohort.methods import Method, Stage, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import batch_std
from cohort.types import Batch, Groups, StepInfo
from cohort.types.declare import declare, needs


def component_advantages(batch: Batch, *, eps: float, ddof: int, missing: str = "zero") -> Tensor:
    """[N, K] each component standardised in its group."""
    components, groups = batch["reward_components"], batch.groups
    if missing == "zero":
        return standardise(components.nan_to_num(0.0), groups, eps=eps, ddof=ddof)
    out = torch.zeros_like(components)
    for k in range(components.shape[1]):
        here = ~components[:, k].isnan()
        index, labels = torch.unique(groups.index[here], return_inverse=True)[::-1]
        out[here, k] = standardise(components[here, k], Groups(index, labels), eps=eps, ddof=ddof)
    return out


def weighted_sum(advantages: Tensor, weights: tuple[float, ...] | None, info: StepInfo) -> Tensor:
    """[N] sum_k w_k a_ik; the weights of the run's rewards if none are given."""
    weights = weights or info.reward_weights or (1.0,) * advantages.shape[1]
    return advantages @ torch.tensor(weights, dtype=advantages.dtype, device=advantages.device)


@needs("reward_components")
@declare(group_size=2)
def decoupled(
    batch: Batch,
    *,
    weights: tuple[float, ...] | None = None,
    eps: float = 1e-4,
    ddof: int = 1,
    batch_norm: bool = True,
    missing: str = "zero",
    info: StepInfo,
) -> Tensor:
    """A_i: weighted sum of component advantages, normalised over the batch: [N]. Source: arXiv:2601.05242."""
    total = weighted_sum(component_advantages(batch, eps=eps, ddof=ddof, missing=missing), weights, info)
    std = batch_std(total, ddof)
    if not batch_norm:
        return total
    return (total - total.mean()) / (std + eps) if bool(std > 0) else torch.zeros_like(total)


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
