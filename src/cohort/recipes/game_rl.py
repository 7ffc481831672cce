"""Game-RL: Synthesizing Multimodal Verifiable Game Data to Boost VLMs' General Reasoning (at first: Code2Logic).

arXiv:2505.13886, code tongjingqi/Game-RL. Confidence: exact.

Questions about positions of games are made by the games' own code, which also gives the exact answers (`cohort data
langtons-ant`, `life` and `sokoban`, as text or as pictures). The training is GRPO with one update a batch:

    A_i  = (r_i - mean_g r) / (std_g r + eps)                     sample standard deviation
    loss = token mean over the batch of the clipped surrogate + beta k3 to the policy at the start

The reward judges what a completion concludes, by its last part: from the last "###" on, else from the last blank line that
does not follow a colon, else from the last "therefore" or "conclusion". The paper asks a model of 72B parameters whether
that part agrees with the answer; the answers here have fixed forms (a letter, a number, coordinates), which the reward
`conclusion` compares by rule.

Defaults: clip 0.2, beta 0.04, eps 1e-4 (official launch script and its framework; 12 rollouts, learning rate 5e-7).
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, aggregation, ratio, regularizer, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Game-RL: Synthesizing Multimodal Verifiable Game Data to Boost VLMs' General Reasoning",
    paper="arXiv:2505.13886",
    idea="questions and exact answers from the code of games; a reward for what the last part concludes",
    confidence="exact",
    rewards=("conclusion",),
)
def game_rl(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-4,
) -> Method:
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps, ddof=1),
        ratio=use(ratio.token),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator="k3"),) if kl_beta else (),
        aggregation=use(aggregation.token_mean),
    )
