"""OPD: on-policy distillation. arXiv:2306.13649 (GKD), and Thinking Machines Lab, On-Policy Distillation (2025).

Also in verl (distillation), TRL (GKDTrainer) and prime-rl (ref_kl). Confidence: exact.

Distillation on the teacher's texts trains states that the student never visits, and a reward is one number a rollout. Here
the student writes and the teacher (--teacher) scores every token; with p the student's distribution and q the teacher's:

    mode="distribution"      loss = token mean of D;   beta 0: D = KL(q || p);   beta 1: D = KL(p || q);
                             else  M = beta q + (1 - beta) p,   D = beta KL(q || M) + (1 - beta) KL(p || M)
    mode="policy-gradient"   A_it = teacher_logp - logp, without gradient, within advantage_clamp; no group
        surrogate="clip"                 the clipped loss (verl)
        surrogate="probability-bound"    -keep A rho + drift_coef (logp - sampler_logp)^2,  rho to the sampler's policy,
                                         keep = 0 where p fell by more than fall_limit since (prime-rl)

Rewards are measured and not learned from. Both models have the same tokens, and logits are taken at the run's temperature.
GKD's share of batches with given texts is left out; `chord` learns from those.

Defaults: beta 0.5 (GKD), clip 0.2, no clamp (verl), fall_limit 0.2, drift_coef 1e-3 (prime-rl).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.distill import divergence
from cohort.types import Batch
from cohort.types.declare import needs


def distance(batch: Batch, *, beta: float) -> Tensor:
    """D of every own token: [N, T], 0 elsewhere."""
    places = batch.mask.flatten().nonzero()[:, 0]
    log_p = batch.picked("logits", places).log_softmax(-1)
    # A teacher's output layer may have rows beyond the tokens.
    log_q = batch.picked("teacher_logits", places)[:, : log_p.shape[-1]].detach().log_softmax(-1)
    out = torch.zeros(batch.mask.numel(), dtype=log_p.dtype, device=log_p.device)
    return out.index_copy(0, places, divergence(log_p, log_q, alpha=beta)).view_as(batch.mask)


@needs("logits", "teacher_logits")
def distilled(batch: Batch, *, beta: float = 0.5) -> Tensor:
    """The token mean of D: scalar; 0, attached to the graph, without tokens. Source: arXiv:2306.13649."""
    return distance(batch, beta=beta).sum() / batch.mask.sum().clamp(min=1)


def gap(batch: Batch, logp: Tensor, advantage_clamp: float | None) -> Tensor:
    """teacher_logp - logp, without gradient: [N, T]; a token that the teacher cannot say counts as one it hardly would."""
    found = (batch["teacher_logp"] - logp.detach()).clamp(min=-1e4)
    return found if advantage_clamp is None else found.clamp(-advantage_clamp, advantage_clamp)


@needs("old_logp", "teacher_logp")
def agreement(batch: Batch, *, advantage_clamp: float | None = None) -> Tensor:
    """The gap to the policy before the step: [N, T]."""
    return gap(batch, batch.old_logp, advantage_clamp)


@needs("old_logp", "teacher_logp")
def clipped_agreement(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float, high: float, advantage_clamp: float | None
) -> Tensor:
    """The clipped loss of the policy's current distance: [N, T]. Source: verl, distillation."""
    return surrogate.clipped(ratio, gap(batch, batch.logp, advantage_clamp), low, high)


def still_likely(batch: Batch, *, fall_limit: float) -> Tensor:
    """[N, T] bool: tokens whose probability has not fallen by more than the limit since they were drawn."""
    return batch.logp.detach().exp() - batch.old_logp.exp() >= -fall_limit


@needs("old_logp", "teacher_logp")
def bounded_agreement(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    fall_limit: float,
    drift_coef: float,
    advantage_clamp: float | None,
) -> Tensor:
    """-keep A rho + drift_coef (logp - old_logp)^2: [N, T]. Source: prime-rl, ref_kl."""
    keep = still_likely(batch, fall_limit=fall_limit).to(ratio.dtype)
    gain = gap(batch, batch.logp, advantage_clamp)
    return -keep * gain * ratio + drift_coef * (batch.logp - batch.old_logp) ** 2


@recipe(
    title="On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
    paper="arXiv:2306.13649",
    idea="a teacher scores every token that the student writes",
    confidence="exact",
)
def opd(
    *,
    mode: Annotated[str, ("distribution", "policy-gradient")] = "distribution",
    beta: Annotated[float, "[0, 1]"] = 0.5,
    surrogate: Annotated[str, ("clip", "probability-bound")] = "clip",
    advantage_clamp: Annotated[float | None, "(0, inf)"] = None,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    fall_limit: Annotated[float, "[0, 1]"] = 0.2,
    drift_coef: Annotated[float, "[0, inf)"] = 1e-3,
) -> Method:
    if mode == "distribution":
        return Method(objective=use(distilled, beta=beta))
    gain = {"advantage_clamp": advantage_clamp}
    loss = (
        use(clipped_agreement, low=clip_low, high=clip_high, **gain)
        if surrogate == "clip"
        else use(bounded_agreement, fall_limit=fall_limit, drift_coef=drift_coef, **gain)
    )
    return Method(advantage=use(agreement, **gain), surrogate=loss, aggregation=use(aggregation.token_mean))
