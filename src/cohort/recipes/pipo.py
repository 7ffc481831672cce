"""PIPO: Policy Improvement Reinforcement Learning (Policy Improvement Policy Optimization). arXiv:2604.00860.

Confidence: reconstructed: the level of the ratio (the base method's own), eps, the step size of the retrospective update
(the run's). Known: the equations, the order of the steps, phi. This is v1; later versions change the base method's signal.

    xi    = (mu_t - mean of the last K means) / (their sample std + eps),  mu_t the step's mean reward   (from step K + 1 on)
    phi   = clip(xi, phi_low, phi_high)
    rPI_i = phi |G| A_i / sum_{j in group} |A_j|       for the rollouts of the step before, A their advantages then

mu_t shows what the last update was worth. Before the step's own update the rollouts of the step before are trained on once
more, with rPI in place of their advantages, by the base method's loss and against the policy that drew them; phi = 0 takes
no update. By default an update that did harm is not repeated (phi_low 0); phi_low < 0 takes it back.

Groups whose advantages sum to no more than 1e-6 have rPI 0: rounding there would come out at the size of a signal. mu is
of all rollouts sampled and their rewards as they were given.

Defaults: K 8 and phi in [0, 0.5] are the paper's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_size, group_sum, token_mean
from cohort.types import Batch, Rollout
from cohort.types.declare import State, declare, hooks
from cohort.types.replay import Replay, pack_step, unpack


def rectified(xi: float, *, phi_low: float = 0.0, phi_high: float = 0.5) -> float:
    """phi(xi) = clip(xi, phi_low, phi_high)."""
    return min(max(xi, phi_low), phi_high)


def verdict(means: list[float], current: float, *, eps: float = 1e-8) -> tuple[float, float, float]:
    """(mu_his, sigma_his, xi) of the current mean against the ones before."""
    window = torch.tensor(means, dtype=torch.float64)
    mu, sigma = float(window.mean()), float(window.std(correction=1)) if len(means) > 1 else 0.0
    return mu, sigma, (current - mu) / (sigma + eps)


def improvement_scale(batch: Batch, phi: float) -> Tensor:
    """phi |G| / sum_{j in group} |A_j| of each rollout's group: [N]; 0 where the sum is. Without one advantage for a
    rollout, |A_j| is the mean over its tokens."""
    if "outcome_advantage" in batch:
        size = batch["outcome_advantage"].abs()
    else:
        size = token_mean(batch.advantages.abs(), batch.mask)
    total, count = group_sum(size, batch.groups), group_size(batch.groups, batch.dtype)
    scale = torch.where(total > 1e-6, count / total.clamp(min=1e-6), torch.zeros_like(total))
    return phi * scale[batch.groups.index]


def _empty() -> State:
    return {"means": [], "phi": 0.0, "previous": None, "judged": None}


def _judge(batch: Batch, state: State, *, window: int, phi_low: float, phi_high: float, eps: float) -> State:
    if not batch.size:
        return state
    means, current = state["means"], float(batch.rewards.to("cpu", torch.float64).mean())
    xi = verdict(means, current, eps=eps)[2] if len(means) == window else 0.0
    phi = rectified(xi, phi_low=phi_low, phi_high=phi_high) if len(means) == window else 0.0
    return {"means": [*means, current][-window:], "phi": phi, "previous": None, "judged": state["previous"]}


def _replay(state: State) -> Replay | None:
    """One more pass and update on the rollouts of the step before, where that step helped."""
    if not state["phi"] or state["judged"] is None:
        return None
    held = unpack(state["judged"])
    scale = improvement_scale(held.batch, state["phi"])
    scaled = held.batch.replace(advantages=scale[:, None] * held.batch.advantages)
    return replace(held, batch=scaled, before=True)


def _keep(batch: Batch, state: State, rollouts: list[Rollout]) -> State:
    return {**state, "previous": pack_step(batch, rollouts), "judged": None}


@declare(on_policy="a step's rewards judge the update before it, which older rollouts have not seen")
@hooks(init=_empty, on_rollouts=_judge, replay=_replay, on_step_end=_keep)
def retrospect(batch: Batch, advantages: Tensor) -> Tensor:
    """Advantages as they are; the hooks look back. Source: arXiv:2604.00860."""
    return advantages


@recipe(
    title="Policy Improvement Reinforcement Learning",
    paper="arXiv:2604.00860",
    idea="an update that raised the success rate is repeated on the rollouts it came from",
    confidence="reconstructed: level of the ratio, eps, step size of the retrospective update",
)
def pipo(
    *,
    window: Annotated[int, "[2, inf)"] = 8,
    phi_low: Annotated[float, "(-inf, inf)"] = 0.0,
    phi_high: Annotated[float, "(-inf, inf)"] = 0.5,
    eps: Annotated[float, "(0, inf)"] = 1e-8,
) -> Method:
    if phi_low > phi_high:
        raise MethodError(f"'pipo': phi_low = {phi_low:g} is above phi_high = {phi_high:g}")
    return Method(credit=(use(retrospect, window=window, phi_low=phi_low, phi_high=phi_high, eps=eps),))
