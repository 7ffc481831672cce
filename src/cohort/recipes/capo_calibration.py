"""CAPO: Calibration-Aware Policy Optimization for Reasoning LLMs. arXiv:2604.12632.

Confidence: reconstructed in two points: that the sum over pairs is not divided by a count, and that the sampling
policy's log-probabilities stand in it. The rest is exact.

    lpm_i = mean_t old_logp_it                                       -log of the rollout's perplexity
    w_ij  = sigmoid(-(lpm_i - lpm_j) / tau) / tau                    i correct, j wrong, same group
    A_i   = m_i sum_j w_ij,   A_j = -m_j sum_i w_ij
    m_i   = 1 if PPL_ref(o_i) <= ref_high (correct)  or  >= ref_low (wrong), else 0,   PPL_ref = exp(-mean_t ref_logp_it)

A correct rollout that is less likely than wrong ones, and a wrong one that is likelier than correct ones, weigh most: the
derivative of a logistic surrogate of the AUC of perplexity as a detector of correctness. The mask takes out what a
calibrated reference finds implausible (right by luck, or probably a false negative); such a rollout still stands in the
pairs of the others. Nothing is normalised: the scale is about the number of opponents / (2 tau). Rewards are 0 or 1
(`threshold` makes graded ones so).

Defaults: tau 0.6, ref_high 2.5, ref_low 1.05 (paper, 1.5B; the last two are quartiles of the reference's perplexities,
to be measured anew for other models). None for both switches the mask, and the reference, off.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.objective import binary
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_table, token_mean
from cohort.types import Batch, Groups
from cohort.types.declare import declare, needs


def pairwise(scores: Tensor, correct: Tensor, groups: Groups, *, tau: float) -> Tensor:
    """[N] sum over wrong j of w_ij for a correct rollout i, minus the sum over correct i of w_ij for a wrong one j."""
    rows, there = group_table(groups)
    score = scores[rows]
    right, wrong = (there & correct[rows]).to(scores.dtype), (there & ~correct[rows]).to(scores.dtype)
    pull = torch.sigmoid((score[:, None, :] - score[:, :, None]) / tau) / tau  # [P, G, G]: row correct, column wrong
    pull = pull * right[:, :, None] * wrong[:, None, :]
    out = torch.zeros_like(scores)
    out[rows[there]] = (pull.sum(2) - pull.sum(1))[there]
    return out


def plausible(batch: Batch, correct: Tensor, *, ref_high: float | None, ref_low: float | None) -> Tensor:
    """[N] bool: the reference finds the rollout as likely as its outcome suggests; a bound of None passes all."""
    perplexity = (-token_mean(batch.ref_logp, batch.mask)).exp()
    noise = torch.zeros_like(correct)
    if ref_high is not None:
        noise = noise | (correct & (perplexity > ref_high))
    if ref_low is not None:
        noise = noise | (~correct & (perplexity < ref_low))
    return ~noise


def _masks(ref_high: float | None, ref_low: float | None) -> bool:
    return ref_high is not None or ref_low is not None


@needs("old_logp", ref_logp=_masks)
@declare(group_size=2)
def calibrated(
    batch: Batch,
    *,
    tau: float = 0.6,
    ref_high: float | None = 2.5,
    ref_low: float | None = 1.05,
    threshold: float | None = None,
) -> Tensor:
    """m_i sum_j sigmoid(-(lpm_i - lpm_j) / tau) / tau for a correct rollout i over the wrong ones j of its group, and
    minus the same over the correct ones for a wrong rollout.

    Returns:
        [N]; 0 in a group that is all correct or all wrong.

    Source: arXiv:2604.12632.
    """
    correct = binary(batch.rewards, threshold, "capo-calibration")
    value = pairwise(token_mean(batch.old_logp, batch.mask), correct, batch.groups, tau=tau)
    if _masks(ref_high, ref_low):
        keep = plausible(batch, correct, ref_high=ref_high, ref_low=ref_low)
        value = torch.where(keep, value, torch.zeros_like(value))
    return value


@recipe(
    title="Calibration-Aware Policy Optimization for Reasoning LLMs",
    paper="arXiv:2604.12632",
    idea="weighs rollouts by how far perplexity misranks right and wrong ones",
    confidence="reconstructed: no division of the pair sum, log-probabilities of the sampling policy",
)
def capo_calibration(
    *,
    tau: Annotated[float, "(0, inf)"] = 0.6,
    ref_high: Annotated[float | None, "[1, inf)"] = 2.5,
    ref_low: Annotated[float | None, "[1, inf)"] = 1.05,
    threshold: float | None = None,
) -> Method:
    return Method(advantage=use(calibrated, tau=tau, ref_high=ref_high, ref_low=ref_low, threshold=threshold))
