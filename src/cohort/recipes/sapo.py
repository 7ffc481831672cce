"""SAPO (Swarm): Sharing is Caring: Efficient LM Post-Training with Collective RL Experience Sharing. arXiv:2509.08721.

Code gensyn-ai/rl-swarm and gensyn-ai/genrl. Confidence: exact. Another method is called SAPO, too (Soft Adaptive Policy
Optimization): this is the swarm.

    A_i  = (r_i - mean_g r) / (std_g r + 1e-8)                 sample deviation; 0 in a group of one
    loss = token mean of -min(rho A_i, clip(rho, 1 - 0.2, 1 + 0.28) A_i), no KL

Runs share groups of rollouts as text: with `share_folder`, a run writes its own there and trains on some of those that others
wrote, scored by its own rewards and tokenized by its own tokenizer (docs/sharing.md). Shared rollouts have no log-probabilities
of their sampler, and enter without an importance weight: the ratio is taken against the run's own policy. Any method can be
shared with; this one has the settings of the paper.

Defaults: clip 0.2 and 0.28; 4 of 8 groups a step from others (share_groups=4, prompts_per_step=4, group_size=8) worked best.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Sharing is Caring: Efficient LM Post-Training with Collective RL Experience Sharing",
    paper="arXiv:2509.08721",
    idea="runs share rollouts as text, and each trains on some that others drew",
    confidence="exact",
)
def sapo(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-8,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps, ddof=std_ddof),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.token_mean),
    )
