"""Optimizing Safe and Aligned Language Generation: A Multi-Objective GRPO Approach. arXiv:2503.21819.

Confidence: reconstructed. Known: four axes scored by one regression model with several outputs, one scalar made of them, GRPO
with LoRA. Inferred: a fixed weighted sum with equal weights, mean squared error for the model, the KL weight.

    r_i = sum_k w_k s_k(x, y_i)
    A_i = (r_i - mean_g r) / (std_g r + eps)

The scores are added first and normalised together: one with a larger spread decides the order whatever its weight says, so
they should be on a common scale (`gdpo` normalises each by itself). Each one's mean is reported; a rising sum can hide a
falling axis.

`objectives` names the rewards of the run that are added. A model that gives them is trained on graded rows, which may lack
some of the scores, and is one reward with a component a label:

    cohort reward-model --model BASE --data graded.jsonl --score-field politeness --score-field safety ... --out scores
    cohort train multi-objective-grpo --reward rm:scores ...

Defaults: the paper's four axes; weights 1 / K and kl_beta 0.04 are the specification's.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import regularizer
from cohort.axes.shaping import named_sum
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Optimizing Safe and Aligned Language Generation: A Multi-Objective GRPO Approach",
    paper="arXiv:2503.21819",
    idea="one reward model scores several axes, which are added before the group is normalised",
    confidence="reconstructed: a fixed weighted sum, equal weights, mean squared error, the KL weight",
)
def multi_objective_grpo(
    *,
    objectives: tuple[str, ...] = ("politeness", "meaningfulness", "actionability", "safety"),
    weights: tuple[float, ...] | None = None,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
) -> Method:
    names = tuple(objectives)
    shares = tuple(weights) if weights is not None else (1 / max(1, len(names)),) * len(names)
    if not names or len(shares) != len(names):
        raise MethodError(
            f"'multi-objective-grpo': {len(shares)} weights for {len(names)} objectives ({', '.join(names)}): one for each"
        )
    return Method(
        shaping=(use(named_sum, names=names, weights=shares),),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
    )
