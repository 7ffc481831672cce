"""Pass@k training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models. arXiv:2508.10751.

Code RUCAIBox/Passk_Training; the second form is arXiv:2503.19595 (verl's "grpo_passk"). Confidence: exact.

Training for pass@1 stops exploring what is sometimes solved. The reward of k rollouts is their best, and a rollout's advantage
the mean over all sets of k that hold it; with c of n right:

    rho = 1 - C(n-c, k) / C(n, k)        sigma = sqrt(rho (1 - rho))
    A   = (1 - rho) / (sigma + adv_eps)                                                    of a right one
    A   = (1 - rho - C(n-c-1, k-1) / C(n-1, k-1)) / (sigma + adv_eps)                      of a wrong one

form="best-minus-second", for rewards of any kind: the best of a group gets r_max - r_second, divided by the group's sample
deviation + adv_eps unless scale_by_std is off, and all others 0.

Rewards are 0 or 1 in the first form (`threshold` makes graded ones so). Defaults: k 4 (the paper has 4 and 8 in groups of 8 to
32), scaled as verl. The paper anneals from pass@k to pass@1 training.
"""

from __future__ import annotations

from math import comb
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import binary
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_order, group_size, group_std, group_sum
from cohort.types import Batch
from cohort.types.declare import declare


def of_count(n: int, c: int, k: int, eps: float) -> tuple[float, float]:
    """Advantages of a right and of a wrong rollout in a group of n with c right ones."""
    if c == 0 or n - c < k:
        return 0.0, 0.0
    rho = 1 - comb(n - c, k) / comb(n, k)
    sigma = (rho * (1 - rho)) ** 0.5 + eps
    return (1 - rho) / sigma, (1 - rho - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / sigma


@declare(group_size="k")
def over_subsets(batch: Batch, *, k: int = 4, eps: float = 1e-6, threshold: float | None = None) -> Tensor:
    """The mean normalised reward of the sets of k that hold a rollout: [N]. Source: arXiv:2508.10751."""
    right = binary(batch.rewards, threshold, "pass-at-k").to(batch.dtype)
    sizes = group_size(batch.groups, batch.dtype).long().tolist()
    counts = group_sum(right, batch.groups).long().tolist()
    table = torch.tensor(
        [of_count(n, c, k, eps) for n, c in zip(sizes, counts, strict=True)], dtype=batch.dtype, device=batch.device
    ).reshape(-1, 2)[batch.groups.index]
    return torch.where(right > 0, table[:, 0], table[:, 1])


@declare(group_size=2)
def best_minus_second(batch: Batch, *, scale_by_std: bool = True, eps: float = 1e-6, ddof: int = 1) -> Tensor:
    """r_max - r_second for the best of each group, 0 for the others and for ties: [N]. Source: arXiv:2503.19595."""
    rewards, groups = batch.rewards, batch.groups
    order, rank, start = group_order(rewards, groups)
    last = groups.size - 1
    lead = rewards[order[start + last]] - rewards[order[(start + last - 1).clamp(min=0)]]
    lead = torch.where(last > 0, lead, torch.zeros_like(lead))
    if scale_by_std:
        lead = lead / (group_std(rewards, groups, ddof) + eps)
    return torch.where(rank == last[groups.index], lead[groups.index], torch.zeros_like(rewards))


@recipe(
    title="Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
    paper="arXiv:2508.10751, arXiv:2503.19595",
    idea="rewards the best of k rollouts, by a formula over all sets of k",
    confidence="exact",
)
def pass_at_k(
    *,
    k: Annotated[int, "[1, inf)"] = 4,
    form: Annotated[str, ("subsets", "best-minus-second")] = "subsets",
    scale_by_std: bool = True,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
    threshold: float | None = None,
) -> Method:
    if form == "subsets":
        return Method(advantage=use(over_subsets, k=k, eps=adv_eps, threshold=threshold))
    return Method(advantage=use(best_minus_second, scale_by_std=scale_by_std, eps=adv_eps, ddof=std_ddof))
