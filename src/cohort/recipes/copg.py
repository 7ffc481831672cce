"""CoPG: Contrastive Policy Gradient: Aligning LLMs on sequence-level scores in a supervised-friendly fashion.

arXiv:2406.19185. Confidence: reconstructed: the mean over pairs for more than two rollouts; the pairwise gradient follows
from the KL-regularised optimum and has the properties that the paper states.

    u_i  = sum_t (logp_it - ref_logp_it),   Rb_i = R_i - beta u_i
    l_ik = -((R_i - R_k) - (beta/2)(u_i - u_k)) (u_i - u_k)                     form="product"
    l_ik = ((R_i - R_k) - beta (u_i - u_k))^2 / (2 beta)                        form="square": the same gradient
    loss = (1/Q) sum_g mean over the pairs of the group of l_ik

The gradient is -(2/G) sum_i A_i grad log pi(y_i), with A_i = Rb_i - mean of Rb over the others, re-evaluated at every
update. Differences cancel the partition function, so the optimum is pi_ref exp(R / beta) whoever drew the rollouts: no
importance ratio, no clip. A group of one counts in Q.

Over pairs, mean (x_i - x_k)(y_i - y_k) = (2/G) sum_i (x_i - mean of the others' x) y_i, so nothing is compared pairwise.

Defaults: beta 0.1 is the specification's (the paper's depends on the reward's scale).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import sequence_log_ratio
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_mean, group_size, group_sum
from cohort.types import Batch, Groups
from cohort.types.declare import declare, needs


def less_others(x: Tensor, groups: Groups) -> Tensor:
    """x_i - mean of x over the other rollouts of the group: [N]; 0 in a group of one."""
    size = group_size(groups, x.dtype)[groups.index]
    centred = x - group_mean(x, groups)[groups.index]
    # Of equal values exactly 0, and still with its gradient.
    centred = centred - torch.where(group_flat(x, groups)[groups.index], centred, torch.zeros_like(centred)).detach()
    return centred * size / (size - 1).clamp(min=1)


def regularized_reward(batch: Batch, *, beta: float) -> Tensor:
    """Rb_i = R_i - beta u_i: [N], with gradient."""
    return batch.rewards - beta * sequence_log_ratio(batch)


def mean_product(x: Tensor, y: Tensor, groups: Groups) -> Tensor:
    """[P] mean of (x_i - x_k)(y_i - y_k) over the pairs of each group; 0 in a group of one."""
    centred = y - group_mean(y, groups)[groups.index]
    return 2 * group_sum(less_others(x, groups) * centred, groups) / group_size(groups, x.dtype)


@needs("ref_logp")
@declare(couples=True, group_size=2, offline=True)
def contrastive(batch: Batch, *, beta: float = 0.1, form: str = "product") -> Tensor:
    """(1/Q) sum_g mean over pairs of -(dR - (beta/2) du) du, d a difference: scalar. Source: arXiv:2406.19185."""
    groups = batch.groups
    if form == "square":
        reward = regularized_reward(batch, beta=beta)
        per_group = mean_product(reward, reward, groups) / (2 * beta)
    else:
        per_group = -mean_product(regularized_reward(batch, beta=beta / 2), sequence_log_ratio(batch), groups)
    return per_group.sum() / max(groups.count, 1)


@recipe(
    title="Contrastive Policy Gradient: Aligning LLMs on sequence-level scores in a supervised-friendly fashion",
    paper="arXiv:2406.19185",
    idea="differences of rewards are fitted by differences of log ratios, whoever drew the rollouts",
    confidence="reconstructed: the mean over pairs for more than two rollouts",
)
def copg(
    *, beta: Annotated[float, "[0, inf)"] = 0.1, form: Annotated[str, ("product", "square")] = "product"
) -> Method:
    if form == "square" and beta == 0:
        raise MethodError("'copg': form='square' divides by beta; give a beta above 0, or form='product'")
    return Method(objective=use(contrastive, beta=beta, form=form))
