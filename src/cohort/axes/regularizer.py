"""Regularizer axis: terms added to the loss. A function returns [N, T], aggregated like token losses, or a scalar."""

from __future__ import annotations

from torch import Tensor

from cohort.reductions.kl import k1, k2, k3, k3_clamped
from cohort.types import Batch
from cohort.types.declare import needs

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
    """-coef H_it: keeps the policy's entropy up, differentiated through the whole distribution of every token.

    Returns:
        [N, T].

    Source: arXiv:1707.06347 eq. 9.
    """
    return -coef * batch["entropy"]
