"""FiberPO: Fibration Policy Optimization (FiberPO, FiberPO-Domain, APC-Obj). arXiv:2603.08239.

Confidence: reconstructed: gates as plain clips, residuals against ungated aggregates, coarse aggregates as means of
their children, a trajectory as APC-Obj's state, the gradient of its budget. Known: one budget a scale, no minimum.

With l_it = logp - old_logp, a_i its mean over rollout i, b_g the mean of a over the group, c_d of b over the domain:

    levels=2:  r = exp( clip(a_i, delta_trajectory) + clip(l_it - a_i, epsilon) )
    levels=4:  r = exp( clip(c_d, delta_domain) + clip(b_g - c_d, delta_group) + clip(a_i - b_g, delta_trajectory)
                        + clip(l_it - a_i, epsilon) )
    loss = -r A_i

A gate that is shut gives no gradient for either sign of A; on-policy r is 1 with the gradient of l. With `delta` it is
APC-Obj instead, a total-variation budget for each trajectory of T tokens, shared by its tokens:

    r = 1 + clip(rho_it - 1, B_it),   B_it = max(0, T delta - sum over the other tokens of |rho - 1|)

`domain` names the column of the data that says which domain a prompt is of; without it all prompts are of one.
Defaults are ours, since the paper's were not recorded: coarse scales get smaller budgets than fine ones.
"""

from __future__ import annotations

import zlib
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_parents, group_sum, token_mean, token_sum_of_others
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def _gate(x: Tensor, budget: float) -> Tensor:
    """x clipped to [-budget, budget]; without any budget nothing passes, not even a gradient at 0."""
    return x.clamp(-budget, budget) if budget > 0 else torch.zeros_like(x)


@needs("old_logp")
def gated_ratio(batch: Batch, *, delta_trajectory: float = 0.05, epsilon: float = 0.2) -> Tensor:
    """exp(clip(a_i, delta_trajectory) + clip(l_it - a_i, epsilon)): [N, T]. Source: arXiv:2603.08239."""
    moved = batch.logp - batch.old_logp
    trajectory = token_mean(moved, batch.mask)[:, None]
    return (_gate(trajectory, delta_trajectory) + _gate(moved - trajectory, epsilon)).exp()


@needs("old_logp")
@declare(couples=True)
def nested_ratio(
    batch: Batch, *, delta_domain: float, delta_group: float, delta_trajectory: float, epsilon: float
) -> Tensor:
    """exp of the gated parts of l_it from the domain down to the token: [N, T]. Source: arXiv:2603.08239.

    Means are those of the minibatch, which holds whole groups; rollouts and groups without tokens are in none.
    """
    groups, there = batch.groups, batch.mask.any(1).to(batch.dtype)
    moved = batch.logp - batch.old_logp
    trajectory = token_mean(moved, batch.mask)
    count = group_sum(there, groups)
    group = group_sum(trajectory, groups) / count.clamp(min=1)  # the mean of no tokens is 0
    domains = group_parents(batch["domain"] if "domain" in batch else torch.zeros_like(groups.index), groups)
    filled = (count > 0).to(batch.dtype)
    domain = (group_sum(group * filled, domains) / group_sum(filled, domains).clamp(min=1))[domains.index]
    coarse = _gate(domain, delta_domain) + _gate(group - domain, delta_group)
    rollout = coarse[groups.index] + _gate(trajectory - group[groups.index], delta_trajectory)
    return (rollout[:, None] + _gate(moved - trajectory[:, None], epsilon)).exp()


def domain_ids(batch: Batch, access: ModelAccess, *, domain: str) -> Batch:
    """Read from the data."""
    ids = [zlib.crc32(str(name).encode()) for name in access.column(domain)]
    return batch.with_rollouts(domain=torch.tensor(ids, dtype=torch.int64, device=batch.device))


@needs("old_logp", "domain")
@hooks(on_scored=domain_ids)
@declare(couples=True, columns=("domain",), provides=("domain",))
def domain_ratio(
    batch: Batch, *, domain: str, delta_domain: float, delta_group: float, delta_trajectory: float, epsilon: float
) -> Tensor:
    """`nested_ratio` with domains from a column of the data: [N, T]. Source: arXiv:2603.08239."""
    fine = {"delta_trajectory": delta_trajectory, "epsilon": epsilon}
    return nested_ratio(batch, delta_domain=delta_domain, delta_group=delta_group, **fine)


@needs("old_logp")
def shared_budget_ratio(batch: Batch, *, delta: float) -> Tensor:
    """1 + clip(rho_it - 1, B_it), B_it what the other tokens leave of the rollout's budget: [N, T].

    Not detached: a token's gradient reaches the others through their budgets. Source: arXiv:2603.08239, APC-Obj.
    """
    deviation = ratio.token(batch) - 1
    budget = (batch.mask.sum(1, keepdim=True) * delta - token_sum_of_others(deviation.abs(), batch.mask)).clamp(min=0)
    return 1 + torch.minimum(torch.maximum(deviation, -budget), budget)


@recipe(
    title="Fibration Policy Optimization",
    paper="arXiv:2603.08239",
    idea="a trust region of its own for token, rollout, prompt and domain",
    confidence="reconstructed: gates, residuals and means of the coarse scales, state and budget of APC-Obj, all values",
)
def fiberpo(
    *,
    levels: Annotated[int, (2, 4)] = 2,
    delta_trajectory: Annotated[float, "[0, inf]"] = 0.05,
    epsilon: Annotated[float, "[0, inf]"] = 0.2,
    delta_group: Annotated[float, "[0, inf]"] = 0.04,
    delta_domain: Annotated[float, "[0, inf]"] = 0.03,
    domain: str | None = None,
    delta: Annotated[float | None, "[0, inf)"] = None,
) -> Method:
    fine = {"delta_trajectory": delta_trajectory, "epsilon": epsilon}
    coarse = {"delta_group": delta_group, "delta_domain": delta_domain}
    if delta is not None:
        gated = use(shared_budget_ratio, delta=delta)
    elif levels == 2:
        gated = use(gated_ratio, **fine)
    else:
        gated = use(domain_ratio, domain=domain, **fine, **coarse) if domain else use(nested_ratio, **fine, **coarse)
    return Method(ratio=gated, surrogate=use(surrogate.unclipped))
