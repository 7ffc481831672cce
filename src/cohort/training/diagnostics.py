"""Metrics of a step that say why a run fails: right and wrong rollouts apart, groups, importance ratios."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cohort.axes.groups import group_max, group_mean, token_mean
from cohort.axes.regularizer import k3
from cohort.batch import Batch


def by_outcome(everything: Batch, batch: Batch) -> dict[str, float]:
    """Length and log-probability of correct and of wrong rollouts, and pass@k within the sampled groups.

    Args:
        everything: all rollouts of the step.
        batch: those trained on, with `logp`, if there are any: where nothing was sampled, the policy before the update is
            known from there alone.
    """
    accuracy, groups = everything["accuracy"], everything.groups
    lengths = everything.mask.sum(1).float()
    out = {
        "group/pass@1": float(group_mean(accuracy, groups).mean()),
        "group/pass@G": float(group_max(accuracy, groups).mean()),
        "length/correct": _mean(lengths, accuracy > 0),
        "length/wrong": _mean(lengths, accuracy <= 0),
    }
    known, before = everything, everything["sampler_logp"]
    if bool(before[everything.mask].isnan().all()) and "logp" in batch:
        known, before = batch, batch.old_logp if "old_logp" in batch else batch.logp
    # A rollout without a token of the policy's own has no log-probability.
    mask = known.mask & ~before.isnan()
    there = mask.any(1)
    logp, right = token_mean(torch.where(mask, before, 0.0), mask), known["accuracy"] > 0
    return {**out, "logp/correct": _mean(logp, there & right), "logp/wrong": _mean(logp, there & ~right)}


def of_ratios(batch: Batch) -> dict[str, float]:
    """How the importance ratios lie at the tokens' last update, and which side is clipped; nothing without a ratio."""
    if "ratio" not in batch or not bool(batch.mask.any()):
        return {}
    ratio, advantages = batch["ratio"][batch.mask], batch.advantages
    acting = batch.loss_mask & (advantages != 0)
    clipped, count = acting & (batch["policy_gradient"] == 0), max(1, int(acting.sum()))
    return {
        "ratio/mean": float(ratio.mean()),
        "ratio/max": float(ratio.max()),
        "ratio/clip_high_fraction": int((clipped & (advantages > 0)).sum()) / count,
        "ratio/clip_low_fraction": int((clipped & (advantages < 0)).sum()) / count,
    }


def of_correction(batch: Batch) -> dict[str, float]:
    """How far the trainer was from the sampler, and what the correction made of it; nothing without a correction."""
    if "correction" not in batch or not bool(batch.mask.any()):
        return {}
    weight = batch["correction"][batch.mask]
    trainer = batch.old_logp if "old_logp" in batch else batch.logp
    d = (trainer - batch["sampler_logp"])[batch.mask]
    square = float((weight**2).mean())
    return {
        "correction/weight_mean": float(weight.mean()),
        # Of every token, 1 if all weigh alike.
        "correction/effective_share": float(weight.mean()) ** 2 / square if square else 0.0,
        "correction/zero_fraction": float((weight == 0).double().mean()),
        "correction/k1": -float(d.mean()),
        "correction/k3": float(k3(torch.zeros_like(d), d).mean()),
    }


def _mean(values: Tensor, which: Tensor) -> float:
    return float(values[which].mean()) if bool(which.any()) else math.nan
