"""OTB: The Optimal Token Baseline: Variance Reduction for Long-Horizon LLM-RL. arXiv:2602.07078.

Confidence: exact (the authors' functions in verl).

The baseline of least variance weighs returns by the squared gradient norm that a rollout has gathered so far, which differs
by token. At the j-th own token of rollout i:

    e_ij = (1 - 2 pi + sum_v pi_v^2) w^2,   pi = exp(old_logp);   w = min(exp(old_logp - sampler_logp), weight_high), or 1
    W_ij = e summed over own tokens 1..j
    B_gj = sum_i W_ij G_ij / (sum_i W_ij + eps),  over the rollouts of the group that have a j-th token
    A_ij = G_ij - B_gj,    G the return: the rewards from that token on

Where one rollout alone is as long, it would be its own baseline: zero_tail takes 0 there. Tokens that an environment wrote
shift nothing. The rest is the host's; TRL and verl take the token mean. Defaults: eps 1e-8, zero_tail (verl).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.critic import token_rewards
from cohort.devices import to_host
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.scan import discounted_sum
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def squared_mass(logits: Tensor) -> Tensor:
    """[...] sum_v pi_v^2 of logits [..., V]."""
    return (torch.logsumexp(2 * logits, -1) - 2 * torch.logsumexp(logits, -1)).exp()


def _score(batch: Batch, access: ModelAccess) -> Batch:
    """`sum_pi_squared` [N, T] under the policy as it is."""
    out = torch.zeros(batch.mask.shape, dtype=batch.dtype, device=batch.device)
    found = {row: squared_mass(logits) for row, logits in access.logits()}
    for row, mass in zip(found, to_host(*found.values()), strict=True):
        out[row, : len(mass)] = mass.to(out)
    return batch.with_tokens(sum_pi_squared=out)


def energy(batch: Batch, *, weight_high: float | None) -> Tensor:
    """W_it, e summed over a rollout's own tokens so far: [N, T], 0 at masked positions."""
    each = 1 - 2 * batch.old_logp.exp() + batch["sum_pi_squared"]
    if weight_high is not None:
        apart = batch.old_logp - batch["sampler_logp"]
        each = each * apart.nan_to_num(0.0).exp().clamp(max=weight_high) ** 2
    each = torch.where(batch.mask, each, torch.zeros_like(each))
    return torch.where(batch.mask, each.cumsum(1), torch.zeros_like(each))


def baseline(batch: Batch, returns: Tensor, weight: Tensor, *, eps: float, zero_tail: bool) -> Tensor:
    """B at each own token: [N, T], 0 at masked positions."""
    place = torch.where(batch.mask, batch.mask.cumsum(1) - 1, 0)
    cell = batch.groups.index[:, None] * batch.mask.shape[1] + place
    at, size = cell[batch.mask], batch.groups.count * batch.mask.shape[1]

    def gathered(values: Tensor) -> Tensor:
        return torch.zeros(size, dtype=values.dtype, device=values.device).index_add(0, at, values)

    found = gathered((weight * returns)[batch.mask]) / (gathered(weight[batch.mask]) + eps)
    alone = torch.bincount(batch.groups.index, minlength=batch.groups.count)[batch.groups.index] < 2
    if zero_tail:
        found = torch.where(torch.bincount(at, minlength=size) < 2, torch.zeros_like(found), found)
    return torch.where(batch.mask & ~alone[:, None], found[cell], torch.zeros_like(returns))


def returns_of(batch: Batch) -> Tensor:
    """G_it, the rewards from own token t on: [N, T]; of `token_rewards` [N, T] where the batch has them."""
    rewards = batch["token_rewards"] if "token_rewards" in batch else token_rewards(batch)
    return torch.where(batch.mask, discounted_sum(rewards, torch.ones_like(rewards)), torch.zeros_like(rewards))


@needs("old_logp", "sum_pi_squared", sampler_logp=lambda weight_high: weight_high is not None)
@hooks(on_scored=_score)
@declare(provides=("sum_pi_squared",))
def token_baseline(
    batch: Batch, *, zero_tail: bool = True, eps: float = 1e-8, weight_high: float | None = None
) -> Tensor:
    """G - B: [N, T]. Source: arXiv:2602.07078."""
    returns = returns_of(batch)
    weight = energy(batch, weight_high=weight_high)
    return returns - baseline(batch, returns, weight, eps=eps, zero_tail=zero_tail)


@recipe(
    title="The Optimal Token Baseline: Variance Reduction for Long-Horizon LLM-RL",
    paper="arXiv:2602.07078",
    idea="a baseline for every token, weighted by the squared gradients gathered so far",
    confidence="exact",
)
def otb(
    *,
    zero_tail: bool = True,
    eps: Annotated[float, "(0, inf)"] = 1e-8,
    weight_high: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    return Method(advantage=use(token_baseline, zero_tail=zero_tail, eps=eps, weight_high=weight_high))
