"""POWER-DL: Sail into the Headwind: Alignment via Robust Rewards and Dynamic Labels against Reward Hacking.

arXiv:2412.09544. Confidence: reconstructed. Known: weighted entropy, the robust term on the chosen response, labels that move
to stationary ones. Inferred: the offset w_c - w_r, labels as an exponential average towards sigmoid(delta), inverse-length
weights, the mean over pairs.

    r(y)  = beta w(y) (1 + log pi(y)),  log pi(y) = sum_t logp_t,  w(y) = 1 / |y| or 1          no reference policy
    delta = r(y_c) - r(y_r)
    loss  = mean over pairs of -l log sigmoid(delta) - (1 - l) log sigmoid(-delta) - eta beta w_c log pi(y_c)
    l    <- (1 - gamma) l + gamma sigmoid(delta)      after the step; l = 1 at first, one label a row of the data

A pair is any two rollouts of a group with different rewards, or a row of a file of pairs (`--pairs`); pairs of one group share
their row's label, which moves by their mean. A pair with an empty completion is left out. gamma = 0 is POWER.

Defaults: beta 2, eta 0.005, gamma 0.1 are the specification's, not the paper's; eta and gamma are meant to be small.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import logistic, mean_of_pairs, preferred_pairs
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_sum
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks


def response_weight(batch: Batch, *, weight: str) -> Tensor:
    """w(y): [N] 1 / |y|, or 1."""
    length = batch.mask.sum(1).clamp(min=1).to(batch.dtype)
    return 1 / length if weight == "inverse_length" else torch.ones_like(length)


def deltas(batch: Batch, *, beta: float, weight: str) -> tuple[Tensor, Tensor, Tensor]:
    """(delta, better, counts), each [K], over the pairs (better, worse); delta is 0 where a completion is empty, and the pair
    does not count."""
    better, worse = preferred_pairs(batch)
    there = batch.mask.any(1)
    counts = there[better] & there[worse]
    reward = beta * response_weight(batch, weight=weight) * (1 + token_sum(batch.logp, batch.mask))
    delta = reward[better] - reward[worse]
    return torch.where(counts, delta, torch.zeros_like(delta)), better, counts


def moved(labels: Tensor, delta: Tensor, *, gamma: float) -> Tensor:
    """(1 - gamma) l + gamma sigmoid(delta), of labels' shape."""
    return (1 - gamma) * labels + gamma * torch.sigmoid(delta)


def _certain(size: int) -> State:
    return {"labels": torch.ones(size, dtype=torch.float64)}


def _move(
    batch: Batch, state: State, *, beta: float = 2.0, gamma: float = 0.1, weight: str = "inverse_length"
) -> State:
    labels: Tensor = state["labels"]
    delta, better, counts = deltas(batch, beta=beta, weight=weight)
    row, delta = batch["row"][better][counts].cpu(), delta.detach()[counts].cpu().to(labels.dtype)
    times = torch.bincount(row, minlength=labels.numel())
    total = torch.zeros_like(labels).index_add(0, row, moved(labels[row], delta, gamma=gamma))
    return {"labels": torch.where(times > 0, total / times.clamp(min=1), labels)}


@hooks(init=_certain, on_step_end=_move)
@declare(couples=True, group_size=2, offline=True)
def robust_preference(
    batch: Batch,
    state: State,
    *,
    beta: float = 2.0,
    eta: float = 0.005,
    gamma: float = 0.1,
    weight: str = "inverse_length",
) -> Tensor:
    """mean over pairs of -l log sigmoid(delta) - (1 - l) log sigmoid(-delta) - eta beta w_c log pi(y_c): scalar.

    Args:
        eta: strength of the likelihood anchor on chosen responses.
        gamma: how fast a label follows the policy's own preference; 0 keeps it at 1.

    Source: arXiv:2412.09544.
    """
    delta, better, counts = deltas(batch, beta=beta, weight=weight)
    label = state["labels"].to(batch.device)[batch["row"][better]].to(delta.dtype)
    anchor = (response_weight(batch, weight=weight) * token_sum(batch.logp, batch.mask))[better]
    return mean_of_pairs((logistic(delta, 1 - label) - eta * beta * anchor)[counts])


@recipe(
    title="Sail into the Headwind: Alignment via Robust Rewards and Dynamic Labels against Reward Hacking",
    paper="arXiv:2412.09544",
    idea="preference labels that give way where they cannot be trusted, and an anchor on chosen responses",
    confidence="reconstructed: offset, label update, inverse-length weights, aggregation",
)
def power_dl(
    *,
    beta: Annotated[float, "(0, inf)"] = 2.0,
    eta: Annotated[float, "[0, inf)"] = 0.005,
    gamma: Annotated[float, "[0, 1]"] = 0.1,
    weight: Annotated[str, ("inverse_length", "one")] = "inverse_length",
) -> Method:
    return Method(objective=use(robust_preference, beta=beta, eta=eta, gamma=gamma, weight=weight))
