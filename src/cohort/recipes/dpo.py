"""DPO: Direct Preference Optimization: Your Language Model is Secretly a Reward Model. arXiv:2305.18290.

Implemented in TRL and elsewhere. Confidence: exact.

    r(y) = beta sum_t (logp_t - ref_logp_t)                  the reward that the policy itself implies, no length average
    loss = mean over pairs of -(1 - s) log sigmoid(r_c - r_r) - s log sigmoid(r_r - r_c)       s = label_smoothing

A pair is any two rollouts of one group with different rewards; the higher one is the chosen one. The completions of a
file of pairs (`--pairs`) have rewards 1 and 0, so that every row is one pair. Without a pair the loss is 0.

Defaults: beta 0.1, no label smoothing (paper). Its learning rates are small, 5e-7 to 1e-6.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes.objective import logistic, mean_of_pairs, preferred_pairs, sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import declare, needs


@needs("ref_logp")
@declare(couples=True, group_size=2, offline=True)
def pairwise_logistic(batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """mean over pairs of -(1 - s) log sigmoid(r_c - r_r) - s log sigmoid(r_r - r_c), r = beta sum_t (logp - ref): scalar.

    Args:
        beta: scale of the implied rewards; smaller lets the policy go further from the reference.
        label_smoothing: s, the share of pairs that are taken to be labelled the wrong way round.

    Source: arXiv:2305.18290 eq. 7.
    """
    reward = beta * sequence_log_ratio(batch)
    better, worse = preferred_pairs(batch)
    return mean_of_pairs(logistic(reward[better] - reward[worse], label_smoothing))


@recipe(
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    paper="arXiv:2305.18290",
    idea="fit preferences by a classification loss; the policy is its own reward model",
    confidence="exact",
)
def dpo(*, beta: Annotated[float, "(0, inf)"] = 0.1, label_smoothing: Annotated[float, "[0, 0.5)"] = 0.0) -> Method:
    return Method(objective=use(pairwise_logistic, beta=beta, label_smoothing=label_smoothing))
