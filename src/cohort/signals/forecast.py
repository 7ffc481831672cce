"""Forecasts of fields judged by classes of severity, and Gaussian forecasts as actions. Source: arXiv:2511.22169.

A forecast is [G, T, V, P]: G members, T steps, V variables, P pixels; the first variable is the one that alarms are raised by.
Pixels count where the target [T, V, P] is above 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

HIGH = 2  # the class from which on a value is high


def horizon(epoch: int, *, base: int, increment: int, every: int, most: int) -> int:
    """min(most, base + floor(epoch / every) increment) steps."""
    return min(most, base + epoch // every * increment)


def step_weights(count: int, base: float) -> Tensor:
    """[T] float64: falling linearly from 1 to `base`, scaled to sum to T."""
    weights = torch.linspace(1.0, base, count, dtype=torch.float64) if count > 1 else torch.ones(1, dtype=torch.float64)
    return weights * count / weights.sum()


def pixel_mean(values: Tensor, valid: Tensor) -> Tensor:
    """[...] the mean of values [..., P] over valid pixels; 0 without any."""
    kept = torch.where(valid, values, torch.zeros_like(values))
    return kept.sum(-1) / valid.sum(-1).clamp(min=1)


def class_of(values: Tensor, edges: Sequence[float]) -> Tensor:
    """The class of each value, 0 .. len(edges); one that equals an edge belongs to the lower class."""
    return torch.bucketize(values.contiguous(), torch.tensor(edges, dtype=values.dtype))


def class_reward(
    prediction: Tensor,
    target: Tensor,
    *,
    edges: Sequence[Sequence[float]],
    var_weights: Sequence[float],
    coarse: float,
    exact: float,
    false_alarm_penalty: float,
    base: float,
) -> Tensor:
    """[G] weighted mean over steps and variables of the pixels' scores: coarse [both high or both not] + exact [same class] -
    penalty [high, where the truth is not]."""
    said, true = (
        torch.stack([class_of(x[..., v, :], edges[v]) for v in range(len(edges))], -2) for x in (prediction, target)
    )
    high, truly = said >= HIGH, true >= HIGH
    score = (
        coarse * (high == truly).double()
        + exact * (said == true).double()
        - false_alarm_penalty * (high & ~truly).double()
    )
    valid = target > 0
    weights = step_weights(len(target), base)[:, None] * torch.tensor(var_weights, dtype=torch.float64) * valid.any(-1)
    return (weights * pixel_mean(score, valid)).sum((-2, -1)) / weights.sum().clamp(min=1e-12)


def alarms(prediction: Tensor, target: Tensor, *, threshold: float, base: float) -> tuple[Tensor, Tensor]:
    """(recall, false-alarm rate) [G] of the first variable at or above the threshold, weighted means over steps."""
    said, true, valid = prediction[:, :, 0] >= threshold, target[:, 0] >= threshold, target[:, 0] > 0
    weights = step_weights(len(target), base)
    positive, negative = true & valid, ~true & valid

    def rate(of: Tensor, steps: Tensor) -> Tensor:
        share = (said & of).sum(-1).double() / of.sum(-1).clamp(min=1)
        kept = weights * steps
        return (kept * share).sum(-1) / (1e-6 + kept.sum())

    return rate(positive, valid.any(-1)), rate(negative, negative.any(-1))


def gaussian_terms(
    mean: Tensor, reference: Tensor, action: Tensor, target: Tensor, *, sigma: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """(log-density of the actions, KL divergence from the reference) of each step and variable [G, T, V]: means over valid
    pixels, 0 without any."""
    scale = torch.tensor(sigma, dtype=mean.dtype)[:, None]
    density = -0.5 * ((action - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
    return pixel_mean(density, target > 0), pixel_mean((reference - mean) ** 2 / (2 * scale**2), target > 0)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """[G] of values [G, T, V] with weights [T, V]; what has no valid pixel keeps its weight."""
    return (values * weights).sum((-2, -1)) / weights.sum()
