"""Regularizer axis: terms added to the loss. A function returns [N, T], aggregated like token losses, or a scalar."""

from __future__ import annotations

from torch import Tensor

from cohort.axes.declare import needs
from cohort.batch import Batch


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


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "k3-clamped": k3_clamped}


@needs("ref_logp")
def kl(batch: Batch, *, beta: float, estimator: str = "k3") -> Tensor:
    """beta * KL estimate to the reference policy, inside the loss and differentiated through logp.

    Args:
        beta: coefficient, at least 0.
        estimator: "k1", "k2", "k3" or "k3-clamped".

    Returns:
        [N, T].

    Source: arXiv:2402.03300 eq. 4 (k3); estimators after Schulman's note on approximating KL divergence.
    """
    return beta * ESTIMATORS[estimator](batch.logp, batch.ref_logp)


@needs("entropy")
def entropy_bonus(batch: Batch, *, coef: float) -> Tensor:
    """-coef H_it: keeps the policy open, differentiated through the whole distribution of every token.

    Returns:
        [N, T].

    Source: arXiv:1707.06347 eq. 9.
    """
    return -coef * batch["entropy"]
