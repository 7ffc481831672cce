"""NFT: Bridging Supervised Learning and Reinforcement Learning in Math Reasoning (Negative-aware Fine-Tuning).

arXiv:2505.18116, code NVlabs/NFT. Confidence: exact (the sum is divided by the number of rollouts, as elsewhere here).

The sampling policy is a mixture, pi_old = c pi+ + (1 - c) pi-, with c the share of right rollouts. The policy is
trained to be pi+: by its own likelihood on right rollouts, and on wrong ones by that of the pi- that it implies:

    R    = exp(min(logp - old_logp, 10)),   c = clamp(share right, rate_clamp, 1 - rate_clamp)
    l_it = -log R                                                             right
    l_it = -neg_weight log max_v((1 - c R) / (1 - c), eps_neg)                wrong; the gradient ignores the max
    loss = (1/N) sum_i w_g sum_t l_it / length_norm                           ratio_type="token"
    loss = (1/N) sum_i w_g l_i,  R_i = exp(min(sum_t (logp - old_logp), 10))  ratio_type="sequence"
    w_g  = 1 - c   |   sqrt((1 - c) / c)   |   1                              "one_minus_rate", "sqrt_odds", "uniform"

The advantage is w_g for a right, -neg_weight w_g for a wrong rollout. Groups with one outcome are replaced, up to
`max_rounds` rounds of sampling a step. Rewards are 0 or 1 (`threshold` makes graded ones so). Defaults: the code's.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.axes.objective import binary
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_mean, token_sum
from cohort.types import Batch
from cohort.types.declare import declare, hooks, needs

CAP = 10.0  # largest log ratio; beyond it a token has no gradient


def correct_rate(batch: Batch, *, threshold: float | None) -> Tensor:
    """[P] share of right rollouts."""
    return group_mean(binary(batch.rewards, threshold, "nft").to(batch.dtype), batch.groups)


@declare(refill="max_rounds")
def mixed_labels(batch: Batch, *, threshold: float | None = None, max_rounds: int = 10) -> Tensor:
    """Keep a group only if some of its rollouts are right and some are wrong: [N] bool."""
    return ~group_flat(binary(batch.rewards, threshold, "nft").to(batch.dtype), batch.groups)[batch.groups.index]


def clamped_rate(batch: Batch, *, rate_clamp: float = 0.02, threshold: float | None = None) -> Batch:
    """The batch with `correct_rate` c [N], clamped; 0.5 in a group of one outcome, which no loss is taken on."""
    share = correct_rate(batch, threshold=threshold)[batch.groups.index]
    rate = torch.where((share > 0) & (share < 1), share, torch.full_like(share, 0.5))
    return batch.with_rollouts(correct_rate=rate.clamp(rate_clamp, 1 - rate_clamp))


@declare(group_size=2)
def prompt_weighted(
    batch: Batch,
    *,
    prompt_weight: str = "one_minus_rate",
    neg_weight: float = 1.0,
    rate_clamp: float = 0.02,
    threshold: float | None = None,
) -> Tensor:
    """A_i = w_g for a right, -neg_weight w_g for a wrong rollout: [N]; 0 in a group of one outcome."""
    rate = clamped_rate(batch, rate_clamp=rate_clamp, threshold=threshold)["correct_rate"]
    weight = {"one_minus_rate": 1 - rate, "sqrt_odds": ((1 - rate) / rate).sqrt(), "uniform": torch.ones_like(rate)}
    sign = torch.where(binary(batch.rewards, threshold, "nft"), 1.0, -neg_weight).to(rate.dtype)
    return sign * weight[prompt_weight] * mixed_labels(batch, threshold=threshold)


def log_ratio(batch: Batch, *, ratio_type: str) -> Tensor:
    """[N, T] min(logp - old_logp, 10), or the same of the sum over the rollout at every token."""
    difference = batch.logp - batch.old_logp
    if ratio_type == "sequence":
        difference = token_sum(difference, batch.mask)[:, None].expand_as(batch.logp)
    return difference.clamp(max=CAP)


@needs("old_logp")
def capped_ratio(batch: Batch, *, ratio_type: str = "token") -> Tensor:
    """R = exp(min(logp - old_logp, 10)) of a token or of the rollout: [N, T]."""
    return log_ratio(batch, ratio_type=ratio_type).exp()


@needs("old_logp")
@hooks(on_advantages=clamped_rate)
@declare(group_size=2, offline=True)
def negative_aware(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, eps_neg: float = 1.0, ratio_type: str = "token"
) -> Tensor:
    """l = -A log R where A > 0, A log max_v((1 - c R) / (1 - c), eps) where A < 0: [N, T]. Source: arXiv:2505.18116."""
    rate = batch["correct_rate"][:, None]
    implied = (1 - rate * ratio) / (1 - rate)
    bounded = implied.detach().clamp(min=eps_neg)
    # The value of log max(implied, eps) with the gradient that implied would have there.
    negative = bounded.log() + (implied - implied.detach()) / bounded
    return -advantages.clamp(min=0) * log_ratio(batch, ratio_type=ratio_type) + advantages.clamp(max=0) * negative


@recipe(
    title="Bridging Supervised Learning and Reinforcement Learning in Math Reasoning",
    paper="arXiv:2505.18116",
    idea="maximum likelihood on right rollouts, and on wrong ones through the negative policy that the policy implies",
    confidence="exact",
)
def nft(
    *,
    prompt_weight: Annotated[str, ("one_minus_rate", "sqrt_odds", "uniform")] = "one_minus_rate",
    neg_weight: Annotated[float, "[0, inf)"] = 1.0,
    eps_neg: Annotated[float, "(0, inf)"] = 1.0,
    rate_clamp: Annotated[float, "[0, 0.5]"] = 0.02,
    length_norm: Annotated[float, "(0, inf)"] = 1000.0,
    ratio_type: Annotated[str, ("token", "sequence")] = "token",
    threshold: Annotated[float | None, "(-inf, inf)"] = None,
    max_rounds: Annotated[int, "[1, inf)"] = 10,
) -> Method:
    rate = {"rate_clamp": rate_clamp, "threshold": threshold}
    token = ratio_type == "token"
    return Method(
        filter=(use(mixed_labels, threshold=threshold, max_rounds=max_rounds),),
        advantage=use(prompt_weighted, prompt_weight=prompt_weight, neg_weight=neg_weight, **rate),
        ratio=use(capped_ratio, ratio_type=ratio_type),
        surrogate=use(negative_aware, eps_neg=eps_neg, ratio_type=ratio_type, **rate),
        aggregation=use(aggregation.constant, max_tokens=length_norm) if token else use(aggregation.sequence_mean),
    )
