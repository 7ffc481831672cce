"""RLUF: Reinforcement Learning from User Feedback. arXiv:2505.14946.

Confidence: reconstructed. Known: the probability that a user gives a "love" reaction is predicted and mixed with helpfulness
and safety; a large weight is hacked. Inferred: binary cross-entropy, the weighted sum, the weights, and GRPO's advantage (the
paper optimises by a constrained method of its authors).

    r_i = w_help helpfulness_i + w_safe safety_i + w_love P[love](x, y_i)          all between 0 and 1
    A_i = (r_i - mean_g r) / (std_g r + eps)

`helpfulness`, `safety` and `love` name rewards of the run. P[love] is learnt from logged answers and whether each got the
reaction; of the many without one a share is enough, and the scores are corrected for it (ln of the share is added):

    cohort reward-model --model BASE --data log.jsonl --label-field love --negative-share 0.1 --out love
    cohort train rluf --reward helpfulness=rm:help --reward safety=rm:safe --reward love=rm:love ...

Raise w_love in steps from 0, take it from helpfulness alone, and watch the means of the other two on held-out prompts: with
a large weight the policy learns cheerful farewells, which raise reactions and are no better. P[love] lies in (0, 1), so its
pull is bounded by w_love. Retrain the model as the traffic shifts, and watch its AUC and the gap between its mean and the
observed rate (`cohort reward-model --only-evaluate`).

Defaults: weights (0.6, 0.3, 0.1), the specification's moderate ones; kl_beta 0.04.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import regularizer
from cohort.axes.shaping import named_sum
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="RLUF: Reinforcement Learning from User Feedback",
    paper="arXiv:2505.14946",
    idea="the predicted probability of a user's reaction is mixed with helpfulness and safety",
    confidence="reconstructed: loss of the model of reactions, the sum, its weights, the group advantage",
)
def rluf(
    *,
    helpfulness: str = "helpfulness",
    safety: str = "safety",
    love: str = "love",
    w_help: Annotated[float, "[0, inf)"] = 0.6,
    w_safe: Annotated[float, "[0, inf)"] = 0.3,
    w_love: Annotated[float, "[0, inf)"] = 0.1,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
) -> Method:
    return Method(
        shaping=(use(named_sum, names=(helpfulness, safety, love), weights=(w_help, w_safe, w_love)),),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
    )
