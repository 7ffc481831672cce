"""GRPO-lambda: Stable Reinforcement Learning for Efficient Reasoning. arXiv:2505.18086.

Confidence: reconstructed in the details. Known: top-lambda selection and both reward formulas. Inferred: rounding of
lambda B, ties, the type of standard deviation, groups without spread, alpha.

The best-solved share lambda of the step's groups is paid for being short, the others for being right:

    r_i = 1 - alpha sigmoid((L_i - mean) / std) if correct, else 0      mean, std of L over the group's correct rollouts
    r_i = 1 if correct, else 0                                          the other groups

Defaults: lambda 0.2 is the paper's example; alpha 0.2 is common for this penalty (the paper's value was not seen).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_sum
from cohort.types import Batch


def selected_groups(batch: Batch, *, lambda_top: float) -> Tensor:
    """[P] bool: the share lambda of groups with the highest accuracy; ties by group label, lower first."""
    groups = batch.groups
    ratio = group_mean(batch["accuracy"], groups)
    by_label = torch.argsort(groups.labels)
    order = by_label[torch.argsort(ratio[by_label], descending=True, stable=True)]
    count = max(1, math.ceil(lambda_top * groups.count - 1e-9)) if lambda_top > 0 else 0
    return torch.zeros_like(ratio, dtype=torch.bool).index_fill(0, order[:count], True)


def short_if_solved(batch: Batch, *, lambda_top: float = 0.2, alpha: float = 0.2) -> Tensor:
    """[N] rewards by accuracy, and by length too in the selected groups. Source: arXiv:2505.18086."""
    groups, correct, lengths = batch.groups, batch["accuracy"], batch.lengths
    count = group_sum(correct, groups).clamp(min=1)
    mean = (group_sum(correct * lengths, groups) / count)[groups.index]
    std = (group_sum(correct * (lengths - mean) ** 2, groups) / count).sqrt()[groups.index]
    z = torch.where(std < 1e-9, torch.zeros_like(std), (lengths - mean) / std.clamp(min=1e-9))
    selected = selected_groups(batch, lambda_top=lambda_top)[groups.index]
    return correct * torch.where(selected, 1 - alpha * z.sigmoid(), torch.ones_like(z))


@recipe(
    title="Stable Reinforcement Learning for Efficient Reasoning",
    paper="arXiv:2505.18086",
    idea="a length penalty for the best-solved prompts of the step alone",
    confidence="reconstructed: rounding, ties, standard deviation, groups without spread, alpha",
)
def grpo_lambda(*, lambda_top: Annotated[float, "[0, 1]"] = 0.2, alpha: Annotated[float, "[0, 1)"] = 0.2) -> Method:
    return Method(shaping=(use(short_if_solved, lambda_top=lambda_top, alpha=alpha),))
