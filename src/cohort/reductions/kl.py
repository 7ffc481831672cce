"""Estimators of KL(policy || reference) at single tokens, from the log-probabilities of both.

Source: J. Schulman, "Approximating KL Divergence", 2020.
"""

from __future__ import annotations

import math

from torch import Tensor


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """logp - ref: unbiased for KL(policy || reference), but negative for some samples."""
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """(logp - ref)^2 / 2: its gradient is the on-policy gradient of the reverse KL."""
    return 0.5 * (logp - ref_logp) ** 2


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """exp(ref - logp) - (ref - logp) - 1: unbiased and never negative."""
    log_ratio = ref_logp - logp
    return log_ratio.exp() - log_ratio - 1


def k3_clamped(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """k3 with the log ratio clipped to 20 and the estimate to 10: one odd token cannot carry the sum, nor a gradient."""
    log_ratio = (ref_logp - logp).clamp(-20, 20)
    return (log_ratio.exp() - log_ratio - 1).clamp(-10, 10)


def data_to_divergence(samples: float, kl: float) -> float:
    """Samples of a step for each nat that it moved the policy: samples / KL(before || after).

    Args:
        samples: decisions that the step learnt from; for language models, tokens.
        kl: mean over their states, nats.

    Returns:
        NaN where the policy did not move, or the divergence is not known.

    Source: arXiv:2603.06009.
    """
    return samples / kl if kl > 0 and math.isfinite(kl) else math.nan
