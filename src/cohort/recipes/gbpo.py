"""GBPO: Bounded Ratio Reinforcement Learning (BPO and Group-relative BPO). arXiv:2604.18578.

Code bounded-ratio-rl/bounded_ratio_rl. Confidence: exact (loss, advantage and scripts).

With the ratio bounded to [1 - eps, 1 + eps] the best policy of a regularised step is known in closed form; the ratio is
pulled to it, from either side, by a weighted absolute distance in place of a clipped surrogate:

    A_i  = (r_i - mean_g r) / (std_g r + eps),    z_i = (r_i - median_g r) / (std_g r + eps) / temperature
    q_i  = 1 - clip_low + (clip_low + clip_high) sigmoid(z_i)
    loss = |rho_it - q_i| |A_i|,   rho = exp(clip(logp - old_logp, -20, 20))

std is the sample standard deviation; a group of one has mean 0, std 1 and median 0. At the small temperature of the
paper, rewards of 0 and 1 give: successes in the minority are pulled to 1 + eps and failures held at 1, failures in the
minority are pulled to 1 - eps and successes held, at an even split both are pulled. A KL term is the host's to add.

Defaults: temperature 1e-4 (scripts), clip 0.2 (0.2 or 0.3 there); 5 to 10 epochs a batch go with them.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cohort.axes import ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_mean, group_quantile, group_size, group_std
from cohort.types import Batch
from cohort.types.declare import hooks


def _scaled(batch: Batch, centre: Tensor, *, eps: float, scale_by_std: bool) -> Tensor:
    """(r - centre_g) / (std_g + eps): [N]; a group of one has centre 0 and standard deviation 1."""
    rewards, groups = batch.rewards, batch.groups
    single = group_size(groups, rewards.dtype) == 1
    centre = torch.where(single, torch.zeros_like(centre), centre)
    std = torch.where(single, torch.ones_like(centre), group_std(rewards, groups, 1))
    scale = std + eps if scale_by_std else torch.ones_like(std)
    level = group_flat(rewards, groups) & ~single
    return torch.where(level[groups.index], 0.0, (rewards - centre[groups.index]) / scale[groups.index])


def bounded_advantages(batch: Batch, *, eps: float = 1e-6, scale_by_std: bool = True) -> Tensor:
    """A_i = (r_i - mean_g r) / (std_g r + eps) with the sample standard deviation; r_i / (1 + eps) in a group of one.

    Returns:
        [N].

    Source: arXiv:2604.18578.
    """
    return _scaled(batch, group_mean(batch.rewards, batch.groups), eps=eps, scale_by_std=scale_by_std)


def with_target(
    batch: Batch,
    *,
    temperature: float = 1e-4,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    eps: float = 1e-6,
    scale_by_std: bool = True,
) -> Batch:
    """The batch with `target_ratio` [N], 1 - clip_low + (clip_low + clip_high) sigmoid(z_i)."""
    z = (
        _scaled(batch, group_quantile(batch.rewards, batch.groups, 0.5), eps=eps, scale_by_std=scale_by_std)
        / temperature
    )
    # Written with tanh, z = 0 gives 1 exactly for equal bounds: such a rollout has no gradient on-policy.
    target = 1 + (clip_high - clip_low) / 2 + (clip_low + clip_high) / 2 * (z / 2).tanh()
    return batch.with_rollouts(target_ratio=target)


@hooks(on_advantages=with_target)
def to_target(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """l_it = |rho_it - q_i| |A_it|: [N, T]. Source: arXiv:2604.18578."""
    return (ratio - batch["target_ratio"][:, None]).abs() * advantages.abs()


def median_critic_loss(returns: Tensor, medians: Tensor) -> Tensor:
    """mean of softplus(Q - U) - (Q - U) / 2, which is least where U is the median of Q: the second critic of BPO."""
    gap = returns - medians
    return (softplus(gap) - gap / 2).mean()


@recipe(
    title="Bounded Ratio Reinforcement Learning",
    paper="arXiv:2604.18578",
    idea="pull the ratio to the closed-form optimum of a bounded step instead of clipping it",
    confidence="exact",
)
def gbpo(
    *,
    temperature: Annotated[float, "(0, inf)"] = 1e-4,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    scale_by_std: Annotated[bool, (True, False)] = True,
) -> Method:
    scale = {"eps": adv_eps, "scale_by_std": scale_by_std}
    return Method(
        advantage=use(bounded_advantages, **scale),
        ratio=use(ratio.token_bounded),
        surrogate=use(to_target, temperature=temperature, clip_low=clip_low, clip_high=clip_high, **scale),
    )
