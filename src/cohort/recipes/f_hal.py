"""f-HAL: f-GRPO and Beyond: Divergence-Based Reinforcement Learning Algorithms for General LLM Alignment (hybrid loss).

arXiv:2602.05946. Confidence: reconstructed. Known: a hybrid of on-policy rewards and off-policy preferences in the same
frame of f-divergences. Inferred: the convex mixture, the side of its weight, plain means over completions.

    r      = beta sum_t (logp_t - ref_logp_t)
    L_on   = mean over rollouts of -A g(r) where A > 0, |A| f*(g(r)) elsewhere           f-GRPO without gamma and clip
    L_pref = -mean over chosen of g(r) + mean over rejected of f*(g(r))
    loss   = hybrid_weight L_pref + (1 - hybrid_weight) L_on

A step has a batch of rollouts (`--data`, `--reward`) and a batch of stored completions (`--pairs`), of as many prompts; pairs
need not be complete. A group of equal rewards gives no signal of its own; the preferences stay. hybrid_weight 0 is f-GRPO.
The divergences with their links g and conjugates f* stand in `cohort.reductions.divergence`.

Defaults: beta 0.1, hybrid_weight 0.5, jensen_shannon are the specification's; the paper's values were not seen.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.axes.objective import sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.divergence import TABLE, variational
from cohort.reductions.groups import token_mean
from cohort.types import Batch
from cohort.types.declare import declare, needs


def parts(batch: Batch, *, divergence: str, beta: float) -> tuple[Tensor, Tensor]:
    """(L_on, L_pref), scalars; 0, attached to the graph, where the batch has nothing for one of them.

    `preference` [N] is 1 for chosen, -1 for rejected completions and 0 for rollouts.
    """
    reward, link = beta * sequence_log_ratio(batch), TABLE[divergence]
    preference = batch["preference"] if "preference" in batch else reward.detach() * 0
    sampled = variational(reward, advantage.rollout_means(batch), link=link)
    stored = variational(reward, preference, link=link)
    # Rows [3, N]: those drawn, chosen and rejected.
    sides = torch.stack([preference == 0, preference > 0, preference < 0])
    on_policy, chosen, rejected = token_mean(torch.stack([sampled, stored, stored]), sides)
    return on_policy, chosen + rejected


@needs("ref_logp", preference=lambda hybrid_weight: hybrid_weight > 0)
@declare(couples=True, group_size=2, auxiliary=True)
def hybrid(
    batch: Batch, *, divergence: str = "jensen_shannon", beta: float = 0.1, hybrid_weight: float = 0.5
) -> Tensor:
    """w L_pref + (1 - w) L_on, both estimates of an f-divergence with r as critic: scalar. Source: arXiv:2602.05946.

    Args:
        divergence: one of those of `cohort.reductions.divergence`.
        hybrid_weight: w, in [0, 1].
    """
    on_policy, preferences = parts(batch, divergence=divergence, beta=beta)
    return hybrid_weight * preferences + (1 - hybrid_weight) * on_policy


@recipe(
    title="f-GRPO and Beyond: Divergence-Based Reinforcement Learning Algorithms for General LLM Alignment",
    paper="arXiv:2602.05946",
    idea="f-GRPO on rollouts, anchored by fixed preferences in the same f-divergence",
    confidence="reconstructed: convex mixture, side of its weight, means over completions",
)
def f_hal(
    *,
    divergence: Annotated[str, tuple(TABLE)] = "jensen_shannon",
    beta: Annotated[float, "(0, inf)"] = 0.1,
    hybrid_weight: Annotated[float, "[0, 1]"] = 0.5,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
) -> Method:
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps),
        objective=use(hybrid, divergence=divergence, beta=beta, hybrid_weight=hybrid_weight),
    )
