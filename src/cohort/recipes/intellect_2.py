"""INTELLECT-2: A Reasoning Model Trained Through Globally Decentralized Reinforcement Learning. arXiv:2505.07291.

Confidence: exact as to TRL's implementation, whose index has the hyperparameters.

PPO's clip bounds one side: at a negative advantage a ratio far above 1 pushes without end. Here the ratio itself ends:

    l_it = -min( min(rho, delta) A, clip(rho, 1 - clip_low, 1 + clip_high) A )

From delta = 1 + clip_high on it is `dual-clip` with cap delta. A smaller delta also holds positive advantages at delta,
which the paper does not intend. Asynchronous rollouts, prompt filters and the length reward of the report are left out.

Defaults: delta 4, clip 0.2, kl_beta 0.001 (k3). The mean is the host's (`dapo+intellect-2:surrogate` takes tokens).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import regularizer
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch


def two_sided(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, delta: float = 4.0, low: float = 0.2, high: float = 0.2
) -> Tensor:
    """-min(min(rho, delta) A, clip(rho, 1 - low, 1 + high) A): [N, T]. Source: arXiv:2505.07291."""
    held, clip = ratio.clamp(max=delta) * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(held, clip)


@recipe(
    title="INTELLECT-2: A Reasoning Model Trained Through Globally Decentralized Reinforcement Learning",
    paper="arXiv:2505.07291",
    idea="the ratio ends at delta, so that negative advantages cannot push without end",
    confidence="exact",
)
def intellect_2(
    *,
    delta: Annotated[float, "(1, inf)"] = 4.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    kl_beta: Annotated[float, "[0, inf)"] = 0.001,
) -> Method:
    return Method(
        surrogate=use(two_sided, delta=delta, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
    )
