"""VADE: Variance-Aware Dynamic Sampling via Online Sample-Level Difficulty Estimation. arXiv:2511.18902.

Confidence: exact, but for the counts at the start (0), ties (the first prompt) and that the worked example's rates are the
paper's settings.

Every prompt keeps decayed counts of right and wrong rollouts. A step draws a success rate for each prompt of the data set
from its posterior, and takes the prompts from which most is to be learnt:

    p_i ~ Beta(alpha_i + 1, beta_i + 1)              Thompson sampling
    I_i = p_i (1 - p_i)^2                            largest (4/27) at 1/3; the largest I_i make the batch
    drawn:   alpha_i <- lambda_selected alpha_i + right_i,     beta_i <- lambda_selected beta_i + wrong_i
    others:  alpha_i <- lambda_unselected alpha_i,             beta_i <- lambda_unselected beta_i

Evidence of a prompt that was drawn is fresh, so older counts are mostly dropped; one that was not is slowly forgotten, so that
it comes again. A graded accuracy counts by its value.

Defaults: lambda_selected 0.2, lambda_unselected 0.999 (the worked example of the method's figure).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.curriculum import draw_beta, highest
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import by_prompt, group_sum
from cohort.types import Batch
from cohort.types.declare import State, hooks


def information_gain(p: Tensor) -> Tensor:
    """p (1 - p)^2 for success rates [n]."""
    return p * (1 - p) ** 2


def expected_information_gain(alpha: Tensor, beta: Tensor) -> Tensor:
    """Mean of p (1 - p)^2 over p ~ Beta(alpha + 1, beta + 1), for counts [n]."""
    a, b = alpha + 1, beta + 1
    return a * b * (b + 1) / ((a + b) * (a + b + 1) * (a + b + 2))


def _no_counts(size: int) -> State:
    return {"counts": torch.zeros(size, 2, dtype=torch.float64)}


def _count(batch: Batch, state: State, *, lambda_selected: float, lambda_unselected: float) -> State:
    prompts, right = by_prompt(batch), batch["accuracy"].cpu().double()
    drawn = group_sum(torch.stack([right, 1 - right], 1), prompts)
    counts = lambda_unselected * state["counts"]
    counts[prompts.labels] = lambda_selected * state["counts"][prompts.labels] + drawn
    return {"counts": counts}


@hooks(init=_no_counts, on_rollouts=_count)
def most_informative(
    state: State, *, count: int, rng: torch.Generator, lambda_selected: float = 0.2, lambda_unselected: float = 0.999
) -> tuple[Tensor, State]:
    """The prompts with the largest I_i of a drawn success rate. Source: arXiv:2511.18902."""
    alpha, beta = (state["counts"] + 1).unbind(1)
    return highest(information_gain(draw_beta(alpha, beta, rng)), count), state


@recipe(
    title="VADE: Variance-Aware Dynamic Sampling via Online Sample-Level Difficulty Estimation for Multimodal RL",
    paper="arXiv:2511.18902",
    idea="prompts by Thompson sampling of their success rate; nothing is sampled to find out",
    confidence="exact",
)
def vade(
    *, lambda_selected: Annotated[float, "[0, 1]"] = 0.2, lambda_unselected: Annotated[float, "[0, 1]"] = 0.999
) -> Method:
    rates = {"lambda_selected": lambda_selected, "lambda_unselected": lambda_unselected}
    return Method(curriculum=use(most_informative, **rates))
