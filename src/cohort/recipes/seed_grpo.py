"""SEED-GRPO: Semantic Entropy Enhanced GRPO for Uncertainty-Aware Policy Optimization. arXiv:2505.12346.

Confidence: reconstructed. Known: A = r - mean, the entropy below, a scale f(alpha SE / SE_max) that is linear,
exponential or focal. Inferred: how the probabilities of clusters are normalised, SE_max = log G, the exact forms of f,
alpha.

Where the rollouts of a prompt disagree in their answers the policy is unsure, and its update is made smaller:

    p(C_k) = sum over the rollouts with answer k of u_i,   u_i = 1/G   or   softmax_g(mean_t old_logp_it)
    SE     = -(1/K) sum_k log p(C_k)                                             mean over the K answers of the group
    u      = min(1, SE / log G)
    A_i    = f(u) (r_i - mean_g r),   f = max(0, 1 - alpha u) | exp(-alpha u) | (1 - u)^alpha | 1 / (1 + alpha u)

As the mean over answers is not weighted by their probability, one dissenter among eight (SE 1.11) counts as less sure
than an even split (0.69). Likelihood weights can take SE beyond log G, hence the minimum. A rollout without an answer
is an answer of its own, or (`no_answer="shared"`) all of them are one.

Defaults: alpha 0.5 is ours; the paper's is not known (a public re-implementation takes 0.0417).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.axes.credit import weight_groups
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_size, group_sum, token_mean
from cohort.signals.votes import answer_ids, unanswered_apart
from cohort.types import Batch
from cohort.types.declare import declare, hooks, needs


def likelihood_shares(batch: Batch, *, likelihood: str) -> Tensor:
    """[N] u_i, which sum to 1 in each group."""
    groups = batch.groups
    if likelihood == "counts":
        return 1 / group_size(groups, batch.dtype)[groups.index]
    mean = token_mean(batch.old_logp, batch.mask)
    weight = (mean - group_max(mean, groups)[groups.index]).exp()
    return weight / group_sum(weight, groups)[groups.index]


def semantic_entropy(batch: Batch, *, likelihood: str, no_answer: str = "own") -> Tensor:
    """[P] SE in nats: minus the mean over the answers of a group of the log of their probability."""
    groups, ids = batch.groups, batch["answer_id"]
    ids = unanswered_apart(ids) if no_answer == "own" else ids
    pairs, cluster = torch.unique(torch.stack([groups.index, ids]), dim=1, return_inverse=True)
    share = likelihood_shares(batch, likelihood=likelihood)
    probability = torch.zeros(pairs.shape[1], dtype=share.dtype, device=share.device).index_add(0, cluster, share)
    # Summed shares of a single answer may miss 1 by rounding; its entropy is 0.
    surprise = -probability.clamp(min=torch.finfo(share.dtype).tiny, max=1).log()
    zero = torch.zeros(groups.count, dtype=share.dtype, device=share.device)
    count = torch.bincount(pairs[0], minlength=groups.count)
    mean = zero.index_add(0, pairs[0], surprise) / count
    return torch.where(count == 1, zero, mean)


def scale_of(entropy: Tensor, size: Tensor, *, f: str, alpha: float) -> Tensor:
    """f(min(1, SE / log G)) for entropies and sizes of groups, both [P]; u is 0 in a group of one."""
    u = torch.where(size > 1, entropy / size.clamp(min=2).log(), torch.zeros_like(entropy)).clamp(max=1)
    if f == "linear":
        return (1 - alpha * u).clamp(min=0)
    if f == "exponential":
        return (-alpha * u).exp()
    return (1 - u) ** alpha if f == "focal" else 1 / (1 + alpha * u)


@needs("answer_id", old_logp=lambda likelihood: likelihood != "counts")
@hooks(on_scored=answer_ids)
@declare(group_size=2, provides=("answer_id",))
def certainty(
    batch: Batch,
    advantages: Tensor,
    *,
    likelihood: str = "counts",
    f: str = "linear",
    alpha: float = 0.5,
    no_answer: str = "own",
) -> Tensor:
    """f(u_g) A_it: [N, T]. Source: arXiv:2505.12346."""
    entropy = semantic_entropy(batch, likelihood=likelihood, no_answer=no_answer)
    scale = scale_of(entropy, group_size(batch.groups, entropy.dtype), f=f, alpha=alpha)
    return weight_groups(batch, advantages, scale)


@recipe(
    title="SEED-GRPO: Semantic Entropy Enhanced GRPO for Uncertainty-Aware Policy Optimization",
    paper="arXiv:2505.12346",
    idea="smaller updates for prompts whose rollouts disagree in their answers",
    confidence="reconstructed: normalisation of cluster probabilities, largest entropy, forms of the scale, alpha",
)
def seed_grpo(
    *,
    likelihood: Annotated[str, ("counts", "length-normalised")] = "counts",
    f: Annotated[str, ("linear", "exponential", "focal", "reciprocal")] = "linear",
    alpha: Annotated[float, "[0, inf)"] = 0.5,
    no_answer: Annotated[str, ("own", "shared")] = "own",
    adv_scale: Annotated[str, ("mean-only", "std")] = "mean-only",
) -> Method:
    return Method(
        advantage=use(advantage.zscore if adv_scale == "std" else advantage.centred),
        credit=(use(certainty, likelihood=likelihood, f=f, alpha=alpha, no_answer=no_answer),),
    )
