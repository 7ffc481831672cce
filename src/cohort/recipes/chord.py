"""CHORD: On-Policy RL Meets Off-Policy Experts: Harmonizing SFT and RL via Dynamic Weighting. arXiv:2508.11408.

Code modelscope/Trinity-RFT. Confidence: exact.

Texts of an expert first shift the policy away from its own patterns, then it must adapt again, then it overfits. Both losses
are mixed, with a weight that fades, and little of it on tokens that are alien or known already:

    loss = (1 - mu) [token mean of the clipped loss over own rollouts] - mu [token mean of phi_it logp_it over experts']
    phi  = p (1 - p), p = exp(logp) without gradient ("phi");   p ("probability");   1 ("none")
    mu   = peak s / warmup_steps for s < warmup_steps, then a cosine from peak to valley over decay_steps, then valley

s counts updates. Experts' texts come from --pairs, as `chosen` or a good `completion` of a prompt; `rejected` ones are left
out. An expert's text is in no group of rollouts. Trinity's `valley` alone is warmup_steps = decay_steps = 0.

Defaults: CHORD-phi, mu 0.1 throughout. CHORD-mu is weighting="none", peak 0.9, valley 0.05, decay_steps 200.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs

WEIGHTINGS = ("phi", "none", "probability")


def share(updates: int, *, warmup_steps: int, decay_steps: int, peak: float, valley: float) -> float:
    """mu after so many updates."""
    if updates < warmup_steps:
        return peak * updates / warmup_steps
    if updates >= warmup_steps + decay_steps:
        return valley
    fade = 1 + math.cos(math.pi * (updates - warmup_steps) / decay_steps)
    return valley + (peak - valley) * fade / 2


def expert_weight(batch: Batch, *, weighting: str) -> Tensor:
    """phi at experts' tokens, 0 elsewhere, without gradient: [N, T]."""
    p = batch.logp.detach().exp()
    phi = {"phi": p * (1 - p), "none": torch.ones_like(p), "probability": p}[weighting]
    return torch.where(batch.mask & (batch["preference"] > 0)[:, None], phi, torch.zeros_like(phi))


@needs("preference")
@declare(auxiliary=True)
def expert_term(batch: Batch, *, weighting: str = "phi") -> Tensor:
    """-phi_it logp_it: [N, T]. Source: arXiv:2508.11408."""
    return -expert_weight(batch, weighting=weighting) * batch.logp


@needs("preference")
@declare(auxiliary=True)
def two_means(
    batch: Batch, *, warmup_steps: int, decay_steps: int, peak: float, valley: float, info: StepInfo
) -> Tensor:
    """(1 - mu) / own tokens, and mu / experts' tokens: [N, T]."""
    mu = share(info.version, warmup_steps=warmup_steps, decay_steps=decay_steps, peak=peak, valley=valley)
    own, expert = (
        (batch.loss_mask & side[:, None]).to(batch.dtype)
        for side in (batch["preference"] == 0, batch["preference"] > 0)
    )
    return (1 - mu) * own / own.sum().clamp(min=1) + mu * expert / expert.sum().clamp(min=1)


@recipe(
    title="On-Policy RL Meets Off-Policy Experts: Harmonizing SFT and RL via Dynamic Weighting",
    paper="arXiv:2508.11408",
    idea="supervised learning on experts' texts beside GRPO, with a weight that fades",
    confidence="exact",
)
def chord(
    *,
    weighting: Annotated[str, WEIGHTINGS] = "phi",
    warmup_steps: Annotated[int, "[0, inf)"] = 0,
    decay_steps: Annotated[int, "[0, inf)"] = 0,
    peak: Annotated[float, "[0, 1]"] = 0.1,
    valley: Annotated[float, "[0, 1]"] = 0.1,
) -> Method:
    schedule = {"warmup_steps": warmup_steps, "decay_steps": decay_steps, "peak": peak, "valley": valley}
    return Method(regularizer=(use(expert_term, weighting=weighting),), aggregation=use(two_means, **schedule))
