"""DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models (GRPO at scale). arXiv:2512.02556.

Confidence: exact for the KL and the mask (TRL reproduces both); that advantages are not divided by the standard deviation
is what summaries of the report state. Experts chosen by the sampler are not replayed; the sets that top-p or top-k drew
over are kept in every run.

The k3 estimate has the KL's gradient only on policy, and explodes where the policy is far below the reference. And stale
rollouts with a negative advantage destabilise training:

    A_i   = r_i - mean_g r
    KL_it = rho (exp(z) - z - 1),   z = ref_logp - logp,   rho = exp(logp - old_logp) with gradient
    M_i   = 0 if A_i < 0 and (1/L_i) sum_t (sampler_logp - logp) > mask_threshold, else 1
    loss  = (1/N) sum_i (1/L_i) sum_t ( M_i clipped loss + kl_beta KL_it )

Defaults: clip 0.2; the report gives neither threshold nor beta: 0.5 nats a token and 0.001 are TRL's.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation, surrogate
from cohort.axes.advantage import rollout_means
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.reductions.kl import k3
from cohort.types import Batch
from cohort.types.declare import needs


def drift(batch: Batch, *, behaviour: str) -> Tensor:
    """[N] mean of sampler_logp (or old_logp) - logp over a rollout's tokens, without gradient; 0 without tokens."""
    drawn = batch.old_logp
    if behaviour == "sampler":
        sampler = batch["sampler_logp"]
        # Where no sampler drew the token, the policy before the update stands for it.
        drawn = torch.where(sampler.isnan(), drawn, sampler)
    return token_mean(drawn - batch.logp.detach(), batch.mask)


@needs("old_logp", sampler_logp=lambda behaviour: behaviour == "sampler")
def masked_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    mask_threshold: float | None = 0.5,
    behaviour: str = "sampler",
    low: float = 0.2,
    high: float = 0.2,
) -> Tensor:
    """M_i times the clipped loss: [N, T]. Source: arXiv:2512.02556."""
    loss = surrogate.clipped(ratio, advantages, low, high)
    if mask_threshold is None:
        return loss
    stale = (rollout_means(batch) < 0) & (drift(batch, behaviour=behaviour) > mask_threshold)
    return loss.masked_fill(stale[:, None], 0.0)


@needs("old_logp", "ref_logp")
def unbiased_kl(batch: Batch, *, beta: float) -> Tensor:
    """beta rho k3, whose derivative is beta rho (logp - ref_logp): [N, T]. Source: arXiv:2512.02556."""
    return beta * (batch.logp - batch.old_logp).exp() * k3(batch.logp, batch.ref_logp)


@recipe(
    title="DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models",
    paper="arXiv:2512.02556",
    idea="an unbiased KL, and stale rollouts with negative advantages masked",
    confidence="reconstructed: no standard deviation; threshold and beta",
)
def deepseek_v3_2(
    *,
    mask_threshold: Annotated[float | None, "(0, inf)"] = 0.5,
    behaviour: Annotated[str, ("sampler", "old")] = "sampler",
    kl_beta: Annotated[float, "[0, inf)"] = 0.001,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    mask = {"mask_threshold": mask_threshold, "behaviour": behaviour}
    return Method(
        advantage=use(advantage.centred),
        surrogate=use(masked_clip, low=clip_low, high=clip_high, **mask),
        regularizer=(use(unbiased_kl, beta=kl_beta),) if kl_beta else (),
        aggregation=use(aggregation.sequence_mean),
    )
