"""FG-ExPO: Frontier-Guided Exploration-Prioritized Policy Optimization via Adaptive KL and Gaussian Curriculum.

arXiv:2605.11403. Confidence: reconstructed. Known: a KL coefficient that grows smoothly with the batch's accuracy, and
questions sampled with Gaussian weights of their accuracy around 0.5. Inferred: the logistic shape, every constant but
the centre, how accuracies are estimated and initialised.

    beta = beta_min + (beta_max - beta_min) / (1 + exp(-steepness (acc - midpoint)))       acc: all rollouts of the step
    loss = clipped surrogate + beta k3
    P(q) ~ exp(-(p_q - center)^2 / (2 sigma^2)) + floor,   p_q <- (1 - ema) p_q + ema * accuracy of its new rollouts

Defaults: center 0.5 (paper); the others are the specification's.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.curriculum import draw_weighted
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import by_prompt, group_mean
from cohort.reductions.kl import k3
from cohort.types import Batch
from cohort.types.declare import State, hooks, needs


def kl_coefficient(
    accuracy: float, *, beta_min: float = 1e-4, beta_max: float = 2e-3, steepness: float = 10.0, midpoint: float = 0.5
) -> float:
    """Coefficient of the KL term for a batch of this accuracy (0 .. 1)."""
    return beta_min + (beta_max - beta_min) / (1 + math.exp(-steepness * (accuracy - midpoint)))


def _no_accuracy(midpoint: float) -> State:
    return {"accuracy": midpoint}


def _batch_accuracy(batch: Batch, state: State) -> State:
    return {"accuracy": float(batch["accuracy"].mean())}


@needs("ref_logp")
@hooks(init=_no_accuracy, on_rollouts=_batch_accuracy)
def adaptive_kl(
    batch: Batch,
    state: State,
    *,
    beta_min: float = 1e-4,
    beta_max: float = 2e-3,
    steepness: float = 10.0,
    midpoint: float = 0.5,
) -> Tensor:
    """beta(accuracy) k3: [N, T]. Source: arXiv:2605.11403."""
    shape = {"beta_min": beta_min, "beta_max": beta_max, "steepness": steepness, "midpoint": midpoint}
    return kl_coefficient(state["accuracy"], **shape) * k3(batch.logp, batch.ref_logp)


def gaussian_weights(accuracy: Tensor, *, center: float = 0.5, sigma: float = 0.25, floor: float = 0.0) -> Tensor:
    """[size] sampling weights of prompts with these accuracies, largest at the centre."""
    return (-((accuracy - center) ** 2) / (2 * sigma**2)).exp() + floor


def _unseen(size: int, initial_accuracy: float) -> State:
    return {"accuracy": torch.full((size,), initial_accuracy, dtype=torch.float64)}


def _remember(batch: Batch, state: State, *, ema: float) -> State:
    accuracy, prompts = state["accuracy"].clone(), by_prompt(batch)
    seen = group_mean(batch["accuracy"].cpu(), prompts).to(accuracy.dtype)
    accuracy[prompts.labels] = (1 - ema) * accuracy[prompts.labels] + ema * seen
    return {"accuracy": accuracy}


@hooks(init=_unseen, on_rollouts=_remember)
def gaussian(
    state: State,
    *,
    count: int,
    rng: torch.Generator,
    center: float = 0.5,
    sigma: float = 0.25,
    floor: float = 0.0,
    ema: float = 1.0,
    initial_accuracy: float = 0.5,
) -> tuple[Tensor, State]:
    """Prompts drawn without replacement by Gaussian weights of their last accuracy. Source: arXiv:2605.11403."""
    weights = gaussian_weights(state["accuracy"], center=center, sigma=sigma, floor=floor)
    return draw_weighted(weights, count, rng), state


@recipe(
    title="FG-ExPO: Frontier-Guided Exploration-Prioritized Policy Optimization",
    paper="arXiv:2605.11403",
    idea="KL grows with accuracy; prompts of medium accuracy come more often",
    confidence="reconstructed: logistic shape, constants, estimation of accuracies",
)
def fg_expo(
    *,
    beta_min: Annotated[float, "[0, inf)"] = 1e-4,
    beta_max: Annotated[float, "[0, inf)"] = 2e-3,
    steepness: Annotated[float, "[0, inf)"] = 10.0,
    midpoint: Annotated[float, "[0, 1]"] = 0.5,
    center: Annotated[float, "[0, 1]"] = 0.5,
    sigma: Annotated[float, "(0, inf)"] = 0.25,
    floor: Annotated[float, "[0, inf)"] = 0.0,
    ema: Annotated[float, "(0, 1]"] = 1.0,
    initial_accuracy: Annotated[float, "[0, 1]"] = 0.5,
) -> Method:
    kl = {"beta_min": beta_min, "beta_max": beta_max, "steepness": steepness, "midpoint": midpoint}
    pick = {"center": center, "sigma": sigma, "floor": floor, "ema": ema, "initial_accuracy": initial_accuracy}
    return Method(curriculum=use(gaussian, **pick), regularizer=(use(adaptive_kl, **kl),))
