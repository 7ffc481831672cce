"""DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization. arXiv:2505.12366.

Code Optimization-AI/DisCO. Confidence: exact (the constant offset of the log-mean-exp is free).

    s_i  = mean_t logp_it   or   mean_t exp(logp_it - old_logp_it)
    J_q  = mean_{i in pos} s_i - tau log mean_{j in neg} exp(s_j / tau)         variant="disco"
    J_q  = mean_{i in pos} s_i - mean_{j in neg} s_j                            variant="disco_b"
    K    = mean over all tokens of (old_logp - logp)   or   of (exp(d) - d - 1), d = logp - old_logp
    loss = -(1/Q) sum over questions with both outcomes of J_q + (kl_beta / 2) max(K - kl_delta, 0)^2

Rewards are 0 or 1 (`threshold` makes graded ones so). Q counts all questions of the batch; a rollout without tokens
belongs to neither side.

Defaults: log-likelihood score with tau 10, kl_delta 1e-4, kl_beta 1e3 (official code).
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes.objective import binary, contrast, kl_hinge
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.types import Batch
from cohort.types.declare import declare, needs


def scores(batch: Batch, *, score: str) -> Tensor:
    """[N] length-normalised log-likelihood, or mean likelihood ratio; 0 for a rollout without tokens."""
    value = batch.logp if score == "log_likelihood" else (batch.logp - batch.old_logp).exp()
    return token_mean(value, batch.mask)


@needs("old_logp")
@declare(couples=True, group_size=2)
def discriminative(
    batch: Batch,
    *,
    variant: str = "disco",
    score: str = "log_likelihood",
    tau: float = 10.0,
    kl_delta: float = 1e-4,
    kl_beta: float = 1e3,
    kl_type: str = "kl",
    threshold: float | None = None,
) -> Tensor:
    """Loss of the batch: scalar. Source: arXiv:2505.12366."""
    correct = binary(batch.rewards, threshold, "disco")
    soft = tau if variant == "disco" else None
    objective, _ = contrast(scores(batch, score=score), correct, batch, tau=soft)
    _, penalty = kl_hinge(batch, delta=kl_delta, beta=kl_beta, kl_type=kl_type)
    return penalty - objective


@recipe(
    title="DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization",
    paper="arXiv:2505.12366",
    idea="rank right above wrong rollouts; a squared hinge on the KL in place of clipping",
    confidence="exact",
)
def disco(
    *,
    variant: Annotated[str, ("disco", "disco_b")] = "disco",
    score: Annotated[str, ("log_likelihood", "likelihood_ratio")] = "log_likelihood",
    tau: Annotated[float | None, "(0, inf)"] = None,
    kl_delta: Annotated[float, "[0, inf)"] = 1e-4,
    kl_beta: Annotated[float, "[0, inf)"] = 1e3,
    kl_type: Annotated[str, ("kl", "low_var_kl")] = "kl",
    threshold: float | None = None,
) -> Method:
    # The paper pairs the log-likelihood score with tau 10 and the likelihood ratio with tau 1.
    tau = tau if tau is not None else (10.0 if score == "log_likelihood" else 1.0)
    hinge = {"kl_delta": kl_delta, "kl_beta": kl_beta, "kl_type": kl_type}
    return Method(objective=use(discriminative, variant=variant, score=score, tau=tau, threshold=threshold, **hinge))
