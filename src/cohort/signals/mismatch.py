"""Log-ratios of completions behind other prompts than their own."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import group_order, group_table, token_sum
from cohort.reductions.kl import k1
from cohort.types import Batch, Groups
from cohort.types.access import ModelAccess


def mismatched(groups: Groups) -> Tensor:
    """[N] the row whose completion each prompt is scored with: of the next group, the last one's being the first."""
    rows, there = group_table(groups)
    rank = group_order(torch.zeros_like(groups.index), groups)[1]
    other = (groups.index + 1) % groups.count
    return rows[other, rank % there.sum(1)[other]]


def score_mismatched(batch: Batch, access: ModelAccess) -> Batch:
    """a forward pass of the policy and one of the reference over as many mismatched completions as there are rollouts

    on_scored hook: the batch with `mismatched_log_ratio` [N], sum_t (logp - ref_logp) of a completion of the next prompt; 0
    where there is but one prompt.
    """
    if batch.groups.count < 2:
        return batch.with_rollouts(mismatched_log_ratio=torch.zeros_like(batch.rewards))
    other, limit = mismatched(batch.groups), access.context_length
    contexts = [rollout.request.context.tokens for rollout in access.rollouts]
    completions = [access.rollouts[j].tokens for j in other.tolist()]
    if limit is not None:
        completions = [done[: limit - len(context)] for context, done in zip(contexts, completions, strict=True)]
    policy, reference = (access.log_probs(contexts, completions, role=role)["logp"] for role in ("policy", "reference"))
    ratio = token_sum(k1(policy, reference), batch.mask[other][:, : policy.shape[1]])
    return batch.with_rollouts(mismatched_log_ratio=ratio.to(batch.dtype))
