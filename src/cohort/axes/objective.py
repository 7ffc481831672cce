"""Objective axis: losses that are no clipped surrogate. A function returns the loss of the minibatch, a scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from cohort.errors import UsageError
from cohort.reductions.groups import group_max, group_sum, group_table, token_sum
from cohort.reductions.kl import k1
from cohort.types import Batch
from cohort.types.declare import declare


class GradedRewardError(UsageError):
    """A method that is defined for rewards 0 and 1 was given others."""


def binary(rewards: Tensor, threshold: float | None, method: str) -> Tensor:
    """[N] bool: which rollouts are correct.

    Args:
        rewards: [N], 0 or 1; any numbers if there is a threshold.
        threshold: rewards at or above it count as 1.
        method: for the message.

    Raises:
        GradedRewardError: a reward is neither 0 nor 1 and no threshold was given.
    """
    if threshold is not None:
        return rewards >= threshold
    odd = (rewards != 0) & (rewards != 1)
    if bool(odd.any()):
        # All its digits: what differs from 1 in the seventh would be shown as 1.
        raise GradedRewardError(
            f"'{method}' is defined for rewards 0 and 1, but the reward {rewards[odd][0].cpu().numpy()} came: "
            f"give it a threshold, as in '{method}(threshold=0.5)', or a reward of 0 and 1"
        )
    return rewards == 1


def contrast(
    scores: Tensor, correct: Tensor, batch: Batch, *, tau: float | None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(1/Q) sum over mixed groups of [ sum_pos w_i s_i - tau log mean_neg exp(s_j / tau) ].

    Args:
        scores: [N], with gradient.
        correct: [N] bool.
        tau: temperature of the log-mean-exp over the wrong rollouts; None takes their mean.
        weights: [N] of the correct rollouts, summing to 1 in each group; None weighs them equally.

    Returns:
        the objective (scalar, to maximise) and which groups are mixed [P] bool. Rollouts without tokens are on no side.
    """
    groups = batch.groups
    there = batch.mask.any(1)
    positive, negative = (correct & there).to(scores.dtype), (~correct & there).to(scores.dtype)
    n_pos, n_neg = group_sum(positive, groups), group_sum(negative, groups)
    mixed = (n_pos > 0) & (n_neg > 0)
    share = positive / n_pos.clamp(min=1)[groups.index] if weights is None else weights * positive
    gain = group_sum(share * scores, groups)
    if tau is None:
        loss = group_sum(negative * scores, groups) / n_neg.clamp(min=1)
    else:
        logits = torch.where(negative > 0, scores / tau, torch.full_like(scores, -torch.inf))
        top = group_max(logits.detach(), groups)
        top = torch.where(mixed, top, torch.zeros_like(top))
        shifted = torch.where(negative > 0, logits - top[groups.index], torch.full_like(scores, -torch.inf))
        total = group_sum(torch.where(negative > 0, shifted, torch.zeros_like(shifted)).exp() * negative, groups)
        mean = torch.where(mixed, total / n_neg.clamp(min=1), torch.ones_like(total))
        loss = tau * (mean.log() + top)
    per_group = torch.where(mixed, gain - loss, torch.zeros_like(gain))
    return per_group.sum() / max(groups.count, 1), mixed


def kl_hinge(batch: Batch, *, delta: float, beta: float, kl_type: str = "kl") -> tuple[Tensor, Tensor]:
    """K, an estimate of KL(old || current) over all tokens of the batch, and (beta / 2) max(K - delta, 0)^2: scalars.

    Args:
        kl_type: "kl": mean of old - logp; "low_var_kl": mean of exp(d) - d - 1 with d = logp - old.
    """
    d = batch.logp - batch.old_logp
    per_token = -d if kl_type == "kl" else d.exp() - d - 1
    count = batch.mask.sum().clamp(min=1)
    estimate = torch.where(batch.mask, per_token, torch.zeros_like(per_token)).sum() / count
    return estimate, 0.5 * beta * (estimate - delta).clamp(min=0) ** 2


def sequence_log_ratio(batch: Batch) -> Tensor:
    """sum_t (logp_it - ref_logp_it), with gradient: [N]; 0 for a rollout without tokens."""
    return token_sum(k1(batch.logp, batch.ref_logp), batch.mask)


def preferred_pairs(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows (better, worse), each [K] int64: any two rollouts of a group with different rewards, the higher one first."""
    rows, there = group_table(batch.groups)
    rewards = batch.rewards[rows]
    better = (rewards[:, :, None] > rewards[:, None, :]) & there[:, :, None] & there[:, None, :]
    group, first, second = better.nonzero(as_tuple=True)
    return rows[group, first], rows[group, second]


def logistic(margin: Tensor, flipped: float | Tensor = 0.0) -> Tensor:
    """-(1 - s) log sigmoid(margin) - s log sigmoid(-margin), s = `flipped`: the chance that a preference is the other way."""
    return -(1 - flipped) * logsigmoid(margin) - flipped * logsigmoid(-margin)


def mean_of_pairs(values: Tensor) -> Tensor:
    """The mean of [K] values; 0, attached to the graph, where there is no pair."""
    return values.sum() / max(1, values.numel())


@declare(couples=True, auxiliary=True)
def replayed_pairs(batch: Batch, *, beta: float = 0.1) -> Tensor:
    """A regularizer: DPO's loss of the pairs that a `replay` hook gave, 0 without any: scalar.

    Their rows have `paired` [N], 1 for the chosen and -1 for the rejected, and `pair_logp` [N, T] of their reference.

    Source: arXiv:2305.18290 eq. 7.
    """
    if "pair_logp" not in batch:
        return 0 * batch.logp.sum()
    pairs = batch.select((batch["paired"] != 0).nonzero()[:, 0])
    pairs = pairs.replace(ref_logp=pairs["pair_logp"], rewards=pairs["paired"].to(pairs.dtype))
    reward = beta * sequence_log_ratio(pairs)
    better, worse = preferred_pairs(pairs)
    return mean_of_pairs(logistic(reward[better] - reward[worse])) + 0 * batch.logp.sum()
