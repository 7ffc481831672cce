"""Losses that reward models are trained with, and measures of how far their scores can be trusted."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def pair_loss(better: Tensor, worse: Tensor) -> Tensor:
    """-mean log sigmoid(better - worse) of scores [n] (Bradley-Terry): scalar. Source: arXiv:2203.02155 eq. 1."""
    return -logsigmoid(better - worse).mean()


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(scores) and labels (0 or 1), [n] each: scalar. Source: arXiv:2505.14946."""
    return binary_cross_entropy_with_logits(scores, labels.to(scores))


def graded_loss(scores: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean over the known (i, k) of (scores_ik - targets_ik)^2: scalar; 0 if none is known. Source: arXiv:2503.21819.

    Args:
        scores, targets: [n, K]; targets are arbitrary where they are not known.
        known: [n, K], 1 or True where there is a target.
    """
    known = known.bool()
    # Not by a product with the mask: what is arbitrary may be infinite, or no number.
    apart = torch.where(
        known, scores - torch.where(known, targets, torch.zeros_like(targets)), torch.zeros_like(scores)
    )
    return (apart**2).sum() / known.sum().clamp(min=1)


def probability(scores: Tensor, negative_share: float = 1.0) -> Tensor:
    """sigmoid(scores + ln negative_share): the probability of label 1 among all rows.

    Args:
        negative_share: share of the rows with label 0 that the scores were learnt from, in (0, 1]; of those with label 1 all.

    Source: arXiv:2505.14946.
    """
    return torch.sigmoid(scores + math.log(negative_share))


def auc(values: Tensor, labels: Tensor) -> float:
    """Share of the pairs of a row with label 1 and one with label 0, [n] each, that `values` put in the right order; equal
    ones count half. NaN where a label is missing altogether."""
    labels = labels.bool()
    ones, zeros = int(labels.sum()), int((~labels).sum())
    if not ones or not zeros:
        return math.nan
    _, place, count = torch.unique(values.double(), return_inverse=True, return_counts=True)
    # Equal values share the mean of their ranks 1 .. n.
    rank = count.cumsum(0).double() - (count.double() - 1) / 2
    return float((rank[place][labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def mean_gap(predicted: Tensor, observed: Tensor) -> float:
    """Mean prediction minus mean outcome, [n] each: above 0 for a model that promises too much."""
    return float(predicted.double().mean() - observed.double().mean())


def calibration_error(predicted: Tensor, observed: Tensor, *, bins: int = 10) -> float:
    """Expected calibration error: sum over bins of (n_b / n) |mean prediction - mean outcome| of the bin.

    Bins hold equally many predictions, but for those that are equal, which are never parted.

    Args:
        predicted, observed: [n].

    Source: arXiv:1706.04599 eq. 3, with bins of equal mass as in arXiv:1909.10155.
    """
    count = predicted.numel()
    if not count:
        return math.nan
    values, place, many = torch.unique(predicted.double(), return_inverse=True, return_counts=True)
    # The bin of a value is that of the middle of its rows.
    middle = many.cumsum(0).double() - many.double() / 2
    bin_of = (middle * min(bins, count) / count).floor().long().clamp(max=bins - 1)[place]
    apart = torch.zeros(bins, dtype=torch.float64).index_add(0, bin_of, values[place] - observed.double())
    return float(apart.abs().sum() / count)


def ordered_share(predicted: Tensor, observed: Tensor) -> float:
    """Share of the pairs of rows with different outcomes, [n] each, that the predictions put in the same order; equal
    predictions count half (Somers' D is twice this, less 1). NaN if all outcomes are equal."""
    predicted, observed = predicted.double(), observed.double()
    right = total = 0.0
    for i in range(1, predicted.numel()):
        apart = (observed[:i] - observed[i]).sign()
        said = (predicted[:i] - predicted[i]).sign()
        differ = apart != 0
        total += float(differ.sum())
        right += float(((said == apart) & differ).sum() + 0.5 * ((said == 0) & differ).sum())
    return right / total if total else math.nan


def disagreement(scores: Tensor) -> Tensor:
    """[...] population standard deviation over the members [M, ...] of an ensemble; 0 of one."""
    return scores.std(0, correction=0)


def lower_bound(scores: Tensor, k: float) -> Tensor:
    """[...] mean - k std over the members [M, ...] of an ensemble: what they agree on. Source: arXiv:2310.02743."""
    return scores.mean(0) - k * disagreement(scores)
