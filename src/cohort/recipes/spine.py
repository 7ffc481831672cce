"""SPINE: Token-Selective Test-Time Reinforcement Learning with Entropy-Band Regularization. arXiv:2511.17938.

Confidence: reconstructed. Known: majority reward, training on the top 20 % of tokens by entropy, hinge losses outside
the 10 % and 50 % quantiles of their entropies, a KL term on the same tokens. Inferred: weights of the band and the KL,
normalisation over the chosen tokens, rounding of the 20 %, interpolation of quantiles, which pass gives the entropies.

    r_i    = 1 if rollout i gives the majority answer of its group, else 0
    S_i    = the max(1, ceil(fork_fraction L_i)) tokens of rollout i with the highest entropy; of equals the earlier
    low_i  = quantile q_low, high_i = quantile q_high of the entropies on S_i
    loss   = (1/N) sum_i (1/|S_i|) sum_(t in S_i) [ clipped surrogate + kl_beta k3
             + lambda_high max(0, H_t - high_i) + lambda_low max(0, low_i - H_t) ]

S_i is chosen by the sampling policy's entropies, which are the current ones at the first update; the band is taken from
the current ones, without gradient, and the hinges see them with it. All other tokens get no gradient. The mean over S_i
is GRPO's aggregation; another one works on the same tokens.

Defaults: fork_fraction, q_low, q_high are the paper's; the lambdas and kl_beta are the specification's.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import regularizer
from cohort.axes.credit import uncertain_tokens
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_quantile
from cohort.signals.votes import majority_reward
from cohort.types import Batch
from cohort.types.declare import needs


@needs("old_entropy")
def forking_tokens(batch: Batch, advantages: Tensor, *, fork_fraction: float = 0.2) -> Batch:
    """The batch with `loss_mask` narrowed to S_i, the tokens of highest entropy. Source: arXiv:2511.17938."""
    return batch.replace(loss_mask=uncertain_tokens(batch, fork_fraction))


def band(batch: Batch, *, q_low: float, q_high: float) -> tuple[Tensor, Tensor]:
    """(low, high) [N], without gradient: quantiles of each rollout's entropies on the tokens of the loss."""
    entropy = batch["entropy"].detach()
    return token_quantile(entropy, batch.loss_mask, q_low), token_quantile(entropy, batch.loss_mask, q_high)


@needs("entropy")
def entropy_band(
    batch: Batch, *, q_low: float = 0.1, q_high: float = 0.5, lambda_low: float = 0.1, lambda_high: float = 0.1
) -> Tensor:
    """lambda_high max(0, H_t - high_i) + lambda_low max(0, low_i - H_t): [N, T]. Source: arXiv:2511.17938."""
    entropy = batch["entropy"]
    low, high = band(batch, q_low=q_low, q_high=q_high)
    # A token on the edge, as the only one of a rollout is, is not pushed: the derivative of relu is 0 there.
    return lambda_high * (entropy - high[:, None]).relu() + lambda_low * (low[:, None] - entropy).relu()


@recipe(
    title="SPINE: Token-Selective Test-Time Reinforcement Learning with Entropy-Band Regularization",
    paper="arXiv:2511.17938",
    idea="majority labels train only the tokens of high entropy, whose entropy is kept in a band",
    confidence="reconstructed: weights of band and KL, normalisation, rounding, quantiles, source of the entropies",
)
def spine(
    *,
    fork_fraction: Annotated[float, "(0, 1]"] = 0.2,
    q_low: Annotated[float, "[0, 1]"] = 0.1,
    q_high: Annotated[float, "[0, 1]"] = 0.5,
    lambda_low: Annotated[float, "[0, inf)"] = 0.1,
    lambda_high: Annotated[float, "[0, inf)"] = 0.1,
    kl_beta: Annotated[float, "[0, inf)"] = 0.001,
    kl: Annotated[str, tuple(regularizer.ESTIMATORS)] = "k3",
    leave_one_out: Annotated[bool, (False, True)] = False,
) -> Method:
    if q_low > q_high:
        raise MethodError(f"'spine': the band is empty: q_low={q_low} lies above q_high={q_high}")
    edges = {"q_low": q_low, "q_high": q_high, "lambda_low": lambda_low, "lambda_high": lambda_high}
    hinges = (use(entropy_band, **edges),) if lambda_low or lambda_high else ()
    return Method(
        shaping=(use(majority_reward, leave_one_out=leave_one_out),),
        credit=(use(forking_tokens, fork_fraction=fork_fraction),),
        regularizer=(*hinges, *((use(regularizer.kl, beta=kl_beta, estimator=kl),) if kl_beta else ())),
    )
