"""DHPO: Orchestrating Tokens and Sequences: Dynamic Hybrid Policy Optimization for RLVR. arXiv:2601.05607.

Confidence: reconstructed. Known: a token and a sequence ratio, each clipped in its own region before they are mixed,
with constant or entropy-made weights. Inferred: how entropy becomes a weight, the minimum over mixed ratios, the
gradient of the sequence ratio.

    r_it = exp(logp - old_logp),   s_i = exp( mean_t (logp - old_logp) )
    w_it = alpha   or   (H_it - min_t H) / (max_t H - min_t H) within the rollout
    m    = w r + (1 - w) s,   mc = w clip(r, token bounds) + (1 - w) clip(s, sequence bounds)
    loss = seq. mean of -min(m A, mc A)                                                        form="mixed"
    loss = seq. mean of -[ w min(r A, clip(r) A) + (1 - w) min(s A, clip(s) A) ]               form="branch_min"

Defaults: token clip 0.2 (GRPO), sequence clip 3e-4 and 4e-4 (GSPO), alpha 0.5; the paper's own were not recorded.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import ratio as ratios
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import needs


def token_weight(batch: Batch, *, mixing: str, alpha: float) -> Tensor:
    """[N, T] weight of the token ratio: alpha, or the entropy scaled to [0, 1] within the rollout (0.5 if constant)."""
    if mixing == "average":
        return torch.full_like(batch.logp.detach(), alpha)
    entropy, mask = batch["entropy"].detach(), batch.mask
    low = entropy.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    spread = entropy.masked_fill(~mask, -torch.inf).amax(1, keepdim=True) - low
    scaled = (entropy - low) / spread
    return torch.where(mask & (spread >= 1e-12), scaled, torch.full_like(entropy, 0.5))


@needs("old_logp", entropy=lambda mixing: mixing == "entropy")
def mixed_ratio(batch: Batch, *, mixing: str = "entropy", alpha: float = 0.5, seq_grad: str = "token") -> Tensor:
    """m_it = w_it r_it + (1 - w_it) s_it: [N, T]. Source: arXiv:2601.05607."""
    weight = token_weight(batch, mixing=mixing, alpha=alpha)
    return weight * ratios.token(batch) + (1 - weight) * ratios.sequence(batch, gradient=seq_grad)


@needs("old_logp", entropy=lambda mixing: mixing == "entropy")
def hybrid_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    mixing: str = "entropy",
    alpha: float = 0.5,
    seq_grad: str = "token",
    form: str = "mixed",
    token_clip_low: float = 0.2,
    token_clip_high: float = 0.2,
    seq_clip_low: float = 3e-4,
    seq_clip_high: float = 4e-4,
) -> Tensor:
    """Token losses [N, T] with each ratio clipped in its own region before mixing."""
    weight = token_weight(batch, mixing=mixing, alpha=alpha)
    token, sequence = ratios.token(batch), ratios.sequence(batch, gradient=seq_grad)
    if form == "branch_min":
        return weight * clipped(token, advantages, token_clip_low, token_clip_high) + (1 - weight) * clipped(
            sequence, advantages, seq_clip_low, seq_clip_high
        )
    bounded = weight * token.clamp(1 - token_clip_low, 1 + token_clip_high)
    bounded = bounded + (1 - weight) * sequence.clamp(1 - seq_clip_low, 1 + seq_clip_high)
    return -torch.minimum(ratio * advantages, bounded * advantages)


@recipe(
    title="Orchestrating Tokens and Sequences: Dynamic Hybrid Policy Optimization for RLVR",
    paper="arXiv:2601.05607",
    idea="token and sequence ratio mixed by entropy, each clipped in its own region",
    confidence="reconstructed: entropy weight and its direction, min over mixed ratios, gradient of the sequence ratio",
)
def dhpo(
    *,
    mixing: Annotated[str, ("average", "entropy")] = "entropy",
    alpha: Annotated[float, "[0, 1]"] = 0.5,
    seq_grad: Annotated[str, ("token", "sequence")] = "token",
    form: Annotated[str, ("mixed", "branch_min")] = "mixed",
    token_clip_low: Annotated[float, "[0, 1]"] = 0.2,
    token_clip_high: Annotated[float, "[0, inf)"] = 0.2,
    seq_clip_low: Annotated[float, "[0, 1]"] = 3e-4,
    seq_clip_high: Annotated[float, "[0, inf)"] = 4e-4,
) -> Method:
    mix = {"mixing": mixing, "alpha": alpha, "seq_grad": seq_grad}
    clip = {
        "token_clip_low": token_clip_low,
        "token_clip_high": token_clip_high,
        "seq_clip_low": seq_clip_low,
        "seq_clip_high": seq_clip_high,
    }
    return Method(ratio=use(mixed_ratio, **mix), surrogate=use(hybrid_clip, form=form, **mix, **clip))
