"""GTPO: Trajectory-Based Policy Optimization (Stabilizing GRPO via Gradient and Entropy Control). arXiv:2508.03772.

Code winstonsmith1897/GTPO. Confidence: exact (without the code's division by the number of conflict tokens).

    A_i    = r_i - mean_g r
    A'_i   = delta_i (A_i - gamma <H>_i),  delta_i = 0 if <H>_i > ln 2 although the policy started below ln 2
    lambda = W (A_i > 0) or 0 (A_i < 0) on conflict tokens, 1 elsewhere
    loss   = -(1/N) sum_i (A'_i / L_i) sum_t lambda_it r_it        no clip, no KL

Conflict tokens: the unbroken runs, from the first token on and from the last token back, of tokens that a rollout of
the opposite sign in the same group has at the same place. In both runs of a positive rollout the weight is W^2.

ratio="self" is r = exp(logp - sg[logp]) as in the code; "old" compares with the sampling policy, for several updates a
batch. Defaults: W 2, gamma 0.1, threshold ln 2 (paper). <H> is measured under the sampling policy, which is the current
one at the first update.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, surrogate
from cohort.axes import ratio as ratios
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks, needs


def _matched(batch: Batch, sign: Tensor, place: Tensor) -> Tensor:
    """[N, T] bool: a rollout of opposite sign in the group has the same token at the same place."""
    tokens, groups = batch["token_ids"], batch.groups
    key = (groups.index[:, None] * (place.max() + 1) + place) * (tokens.max() + 1) + tokens
    positive, negative = batch.mask & (sign > 0)[:, None], batch.mask & (sign < 0)[:, None]
    return (positive & torch.isin(key, key[negative])) | (negative & torch.isin(key, key[positive]))


def conflict_weights(batch: Batch, sign: Tensor, *, w_pos: float) -> tuple[Tensor, Tensor]:
    """(lambda, conflict) [N, T]: weights of the tokens, and 1 where a token is in a leading or trailing run.

    Args:
        sign: [N] positive, negative or 0 (inactive rollouts).
        w_pos: weight W of conflict tokens in positive rollouts.
    """
    mask = batch.mask
    if not bool(mask.any()):
        return torch.zeros(mask.shape, dtype=batch.dtype), torch.zeros_like(mask)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    from_end = (mask.sum(1, keepdim=True) - 1 - place).clamp(min=0)

    lead = _run(_matched(batch, sign, place), mask)
    trail = _run(_matched(batch, sign, from_end).flip(1), mask.flip(1)).flip(1)
    weight = torch.where(sign > 0, w_pos, 0.0).to(batch.dtype)[:, None]
    one = torch.ones((), dtype=batch.dtype, device=batch.device)
    factor = torch.where(lead, weight, one) * torch.where(trail, weight, one)
    return torch.where(mask, factor, torch.zeros_like(factor)), lead | trail


def _run(matched: Tensor, mask: Tensor) -> Tensor:
    """[N, T] bool: the unbroken stretch of matched tokens from the first valid one on."""
    return (matched | ~mask).to(torch.int8).cumprod(1).bool() & mask


def _start(initial_entropy: float | None) -> State:
    return {"initial_entropy": initial_entropy}


def _measure(batch: Batch, state: State) -> State:
    if state["initial_entropy"] is not None:
        return state
    return {"initial_entropy": float(token_mean(batch["old_entropy"], batch.mask).mean())}


def entropy_gate(mean_entropy: Tensor, *, initial: float, threshold: float) -> Tensor:
    """[N] bool delta: False where the entropy rose above a threshold that the policy started below."""
    return (mean_entropy <= threshold) | (initial > threshold)


@needs("old_entropy", "token_ids")
@hooks(init=_start, on_rollouts=_measure)
@declare(group_size=2)
def conflict_credit(
    batch: Batch,
    advantages: Tensor,
    state: State,
    *,
    w_pos: float = 2.0,
    entropy_threshold: float = math.log(2),
    gamma: float = 0.1,
    initial_entropy: float | None = None,
) -> Tensor:
    """lambda_it delta_i (A_i - gamma <H>_i): [N, T]. Source: arXiv:2508.03772."""
    sign = advantage.centred(batch)
    weight, _ = conflict_weights(batch, sign, w_pos=w_pos)
    entropy = token_mean(batch["old_entropy"], batch.mask)
    gate = entropy_gate(entropy, initial=state["initial_entropy"], threshold=entropy_threshold)
    return weight * torch.where(gate[:, None], advantages - gamma * entropy[:, None], torch.zeros_like(advantages))


@recipe(
    title="GTPO: Stabilizing Group Relative Policy Optimization via Gradient and Entropy Control",
    paper="arXiv:2508.03772",
    idea="protect tokens that right and wrong rollouts share; push down rollouts whose entropy explodes",
    confidence="exact",
)
def gtpo(
    *,
    w_pos: Annotated[float, "[0, inf)"] = 2.0,
    entropy_threshold: Annotated[float, "[0, inf)"] = math.log(2),
    gamma: Annotated[float, "[0, inf)"] = 0.1,
    initial_entropy: Annotated[float | None, "[0, inf)"] = None,
    ratio: Annotated[str, ("self", "old")] = "self",
) -> Method:
    how = {"w_pos": w_pos, "entropy_threshold": entropy_threshold, "gamma": gamma, "initial_entropy": initial_entropy}
    return Method(
        advantage=use(advantage.centred),
        credit=(use(conflict_credit, **how),),
        ratio=use(ratios.on_policy if ratio == "self" else ratios.token),
        surrogate=use(surrogate.unclipped),
    )
