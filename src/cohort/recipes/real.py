"""REAL: Rewards as Labels: Revisiting RLVR from a Classification Perspective. arXiv:2602.05630.

In modelscope/ms-swift. Confidence: exact; inferred: normalisation of variant="bce", and that groups with one outcome are
left out (the framework does it, the equation does not).

    s_i = mean_t (logp_it - old_logp_it)
    L_g = log(1 + sum_{right} exp(-s_i / tau)) + log(1 + sum_{wrong} exp(s_j / tau))        variant="group_softmax"
    L_g = (1/G) [ sum_{right} log(1 + exp(-s_i / tau)) + sum_{wrong} log(1 + exp(s_j / tau)) ]        variant="bce"
    loss = (1/Q) sum_g L_g,  Q counts all groups

The 1 is an anchor with logit 0: right rollouts are pushed above it and wrong ones below it, each with a weight of at
most 1/tau, largest for the rollout that is furthest on the wrong side. A rollout without tokens stays in its class with
logit 0.

label_rule="reward": the reward 1 is right, 0 wrong (`threshold` makes graded ones so). "above_group_mean": right is what
earned more than its group's mean; a group of equal rewards then has no classes.

Defaults: tau 0.5 (framework).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import binary, logistic
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_max, group_mean, group_size, group_sum, token_mean
from cohort.types import Batch, Groups
from cohort.types.declare import declare, needs


def labels(batch: Batch, *, label_rule: str, threshold: float | None) -> tuple[Tensor, Tensor]:
    """(right, wrong) [N] bool each; a rollout may be neither."""
    if label_rule == "reward":
        right = binary(batch.rewards, threshold, "real")
        return right, ~right
    rewards, groups = batch.rewards, batch.groups
    # A reward that is its group's mean may miss it by rounding, which must not make it right.
    rounding = 8 * torch.finfo(rewards.dtype).eps * group_max(rewards.abs(), groups)[groups.index]
    right = rewards - group_mean(rewards, groups)[groups.index] > rounding
    flat = group_flat(rewards, groups)[groups.index]
    return right & ~flat, ~right & ~flat


def contributing(right: Tensor, wrong: Tensor, groups: Groups, *, skip_uniform: bool) -> Tensor:
    """[P] bool: groups with both classes, or with either."""
    some_right = group_sum(right.to(torch.int64), groups) > 0
    some_wrong = group_sum(wrong.to(torch.int64), groups) > 0
    return some_right & some_wrong if skip_uniform else some_right | some_wrong


def anchored(logits: Tensor, members: Tensor, groups: Groups) -> Tensor:
    """[P] log(1 + sum over the members of the group of exp(logit))."""
    low = torch.full_like(logits, -torch.inf)
    top = group_max(torch.where(members, logits.detach(), low), groups).clamp(min=0)
    shifted = torch.where(members, logits - top[groups.index], torch.zeros_like(logits))
    total = group_sum(torch.where(members, shifted.exp(), torch.zeros_like(logits)), groups)
    return top + (total + (-top).exp()).log()


@needs("old_logp")
@declare(couples=True, group_size=2, offline=True)
def classification(
    batch: Batch,
    *,
    tau: float = 0.5,
    variant: str = "group_softmax",
    skip_uniform_groups: bool = True,
    label_rule: str = "reward",
    threshold: float | None = None,
) -> Tensor:
    """(1/Q) sum_g [log(1 + sum_right exp(-s / tau)) + log(1 + sum_wrong exp(s / tau))]: scalar. Source: arXiv:2602.05630."""
    groups = batch.groups
    right, wrong = labels(batch, label_rule=label_rule, threshold=threshold)
    logits = token_mean(batch.logp - batch.old_logp, batch.mask) / tau
    if variant == "bce":
        each = logistic(torch.where(right, logits, -logits))
        per_group = group_sum(torch.where(right | wrong, each, torch.zeros_like(each)), groups)
        per_group = per_group / group_size(groups, each.dtype)
    else:
        per_group = anchored(-logits, right, groups) + anchored(logits, wrong, groups)
    used = contributing(right, wrong, groups, skip_uniform=skip_uniform_groups)
    return torch.where(used, per_group, torch.zeros_like(per_group)).sum() / max(groups.count, 1)


@recipe(
    title="Rewards as Labels: Revisiting RLVR from a Classification Perspective",
    paper="arXiv:2602.05630",
    idea="rewards are classes and log ratios their logits, so that no rollout's weight exceeds 1/tau",
    confidence="exact",
)
def real(
    *,
    tau: Annotated[float, "(0, inf)"] = 0.5,
    variant: Annotated[str, ("group_softmax", "bce")] = "group_softmax",
    skip_uniform_groups: Annotated[bool, (True, False)] = True,
    label_rule: Annotated[str, ("reward", "above_group_mean")] = "reward",
    threshold: Annotated[float | None, "(-inf, inf)"] = None,
) -> Method:
    rule = {"skip_uniform_groups": skip_uniform_groups, "label_rule": label_rule, "threshold": threshold}
    return Method(objective=use(classification, tau=tau, variant=variant, **rule))
