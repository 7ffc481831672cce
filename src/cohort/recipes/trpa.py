"""TRPA: Trust Region Preference Approximation: A simple and stable reinforcement learning algorithm for LLM reasoning.

arXiv:2504.04524, code XueruiSu/Trust-Region-Preference-Approximation. Confidence: exact for what the code computes; the
paper writes sums of log ratios where the code takes means, and a beta for each rollout where the code has one a pair.

    level = 1 right | 2 wrong | 3 no answer found | 4 format not kept                     lower is better
    u_i   = mean_t (logp_it - ref_logp_it)
    h_wl  = beta a (u_w - u_l) for rollouts w, l of a group with level_w < level_l;   a = anisotropy if level_w = 1, else 1
    tr    = mean over all tokens of clamp(exp(d) - d - 1, -10, 10),   d = old_logp - logp
    loss  = mean over the pairs of -log sigmoid(h) + tr_kl_coef tr                        or tr_kl_coef sqrt(tr + 0.25)

Where no group of the batch holds two levels, the first term is the mean over rollouts of -log sigmoid(u_i) for level 1
and -log sigmoid(-u_i) for the others.

`format` names a reward of the run (with weight 0 if it should not count) that is above 0 where the format is kept;
without it every format counts as kept. Right is what the verifier says; an answer is found where it marks one, or
holds a number.

Defaults: beta 0.1, anisotropy 2.5, tr_kl_coef 1e-3 (code).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import logistic, mean_of_pairs, preferred_pairs
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.signals.answers import answer_key
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

# Largest value of a token's trust region term; beyond it the token has no gradient of that term.
CAP = 10.0


def preference_level(format_ok: Tensor, parsed: Tensor, right: Tensor) -> Tensor:
    """[N] int64 from 1 (best) to 4, from what holds of each rollout ([N] bool)."""
    level = torch.where(right, 1, torch.where(parsed, 2, 3))
    return torch.where(format_ok, level, 4)


def add_level(batch: Batch, access: ModelAccess, *, format: str | None = None, info: StepInfo) -> Batch:
    """on_scored hook: the batch with `level` [N], from the verifier, the rollouts' texts and the reward for the format."""
    parsed = torch.tensor([answer_key(rollout.text) is not None for rollout in access.rollouts], device=batch.device)
    kept = torch.ones_like(parsed) if format is None else component(batch, format, info) > 0
    return batch.with_rollouts(level=preference_level(kept, parsed, batch["accuracy"] > 0))


def level_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows (better, worse), each [K] int64: any two rollouts of a group with different levels."""
    return preferred_pairs(batch.replace(rewards=-batch["level"].to(batch.dtype)))


def preference_loss(batch: Batch, *, beta: float, anisotropy: float) -> Tensor:
    """Scalar: the mean over pairs, or over rollouts where the batch has no pair."""
    u, level = token_mean(batch.logp - batch.ref_logp, batch.mask), batch["level"]
    better, worse = level_pairs(batch)
    if not better.numel():
        return mean_of_pairs(logistic(torch.where(level == 1, u, -u)))
    factor = torch.where(level[better] == 1, anisotropy, 1.0).to(u.dtype)
    return mean_of_pairs(logistic(beta * factor * (u[better] - u[worse])))


def trust_region(batch: Batch) -> Tensor:
    """Scalar: the capped k3 estimate of KL(old || current), mean over all tokens."""
    # Far beyond the cap already, where the exponential of a larger difference could overflow.
    d = (batch.old_logp - batch.logp).clamp(max=CAP)
    per_token = (d.exp() - d - 1).clamp(-CAP, CAP)
    return torch.where(batch.mask, per_token, torch.zeros_like(per_token)).sum() / batch.mask.sum().clamp(min=1)


@needs("old_logp", "ref_logp", "level")
@hooks(on_scored=add_level)
@declare(couples=True, group_size=2, offline=True, components=("format",), provides=("level",))
def preference_approximation(
    batch: Batch, *, beta: float = 0.1, anisotropy: float = 2.5, tr_kl_coef: float = 1e-3, sqrt_tr_kl: bool = False
) -> Tensor:
    """Mean over pairs of -log sigmoid(beta a (u_w - u_l)) + tr_kl_coef KL(old || current): scalar. Source: arXiv:2504.04524."""
    distance = trust_region(batch)
    penalty = tr_kl_coef * ((distance + 0.25).sqrt() if sqrt_tr_kl else distance)
    return preference_loss(batch, beta=beta, anisotropy=anisotropy) + penalty


@recipe(
    title="Trust Region Preference Approximation: A simple and stable reinforcement learning algorithm for LLM reasoning",
    paper="arXiv:2504.04524",
    idea="rule checks make levels, levels make pairs; a logistic loss over all pairs in a trust region",
    confidence="exact",
)
def trpa(
    *,
    beta: Annotated[float, "(0, inf)"] = 0.1,
    anisotropy: Annotated[float, "(0, inf)"] = 2.5,
    tr_kl_coef: Annotated[float, "[0, inf)"] = 1e-3,
    sqrt_tr_kl: Annotated[bool, (True, False)] = False,
    format: str | None = None,
) -> Method:
    how = {"beta": beta, "anisotropy": anisotropy, "tr_kl_coef": tr_kl_coef, "sqrt_tr_kl": sqrt_tr_kl}
    return Method(objective=use(preference_approximation, format=format, **how))
