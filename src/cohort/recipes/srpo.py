"""SRPO: Unifying Group-Relative and Self-Distillation Policy Optimization via Sample Routing. arXiv:2604.02288.

Confidence: exact; the teacher's entropy is taken over the full vocabulary and the divergence is SDPO's.

    z_i  = 1 for wrong rollouts that a teacher can be shown something for (a correct sibling, or feedback), else 0
    w_it = exp(-dw_beta H_it) / mean of it over all distilled tokens,  H the entropy of the teacher's distribution
    loss = ( sum_it (1 - z_i) clipped_it + sum_it z_i w_it d_it ) / number of completion tokens of all rollouts

clipped is GRPO's token loss with advantages of the whole group, d the divergence between the policy and its own slow copy
that sees the sibling's solution (see sdpo). H comes from a pass of the teacher as it was when the step began, so that w does
not depend on how a minibatch is cut. With nothing to distil the loss is GRPO's with the token mean.

Defaults: dw_beta 1, alpha 0.5, teacher rate 0.05 (teacher_decay 0.95), no division by the standard deviation and asymmetric
clipping as in the experiments (0.2 and 0.28, whose values were not recorded).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.distill import ENDING, FEEDBACK, SOLUTION, distilled, has_teacher, teacher_contexts
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def routed(correct: Tensor, available: Tensor) -> Tensor:
    """[N] bool z: wrong, and with something to show a teacher; the others take GRPO's loss."""
    return ~correct & available


def _teacher_entropy(batch: Batch, access: ModelAccess) -> Batch:
    """a forward pass of the teacher over the rollouts that it teaches"""
    entropy = torch.zeros(batch.mask.shape, dtype=batch.dtype, device=batch.device)
    rows = has_teacher(batch).nonzero()[:, 0]
    if rows.numel():
        contexts = [[token for token in row if token >= 0] for row in batch["teacher_context"][rows].tolist()]
        completions = [access.rollouts[i].tokens for i in rows.tolist()]
        how = {"want": frozenset({"entropy"}), "support": [access.rollouts[i].support for i in rows.tolist()]}
        seen = access.log_probs(contexts, completions, role="ema", **how)["entropy"]
        entropy[rows, : seen.shape[1]] = seen.to(entropy)
    return batch.with_tokens(teacher_entropy=entropy)


@needs("teacher_context", "teacher_entropy")
@hooks(on_scored=teacher_contexts)
@declare(provides=("teacher_context", "distil_weight"))
def routes(batch: Batch, advantages: Tensor, *, dw_beta: float = 1.0) -> Batch:
    """w_it = exp(-dw_beta H_it) / mean over distilled tokens as `distil_weight` [N, T]; distilled rollouts have advantage 0."""
    keep = batch.loss_mask & has_teacher(batch)[:, None]
    entropy = batch["teacher_entropy"].masked_fill(~keep, torch.inf)
    # Relative to the smallest, which cancels, so that not all of them underflow.
    raw = (entropy.min() - entropy).mul_(dw_beta).exp_().masked_fill_(~keep, 0.0)
    weight = raw * (keep.sum() / raw.sum().clamp(min=torch.finfo(raw.dtype).tiny))
    own = torch.where(has_teacher(batch)[:, None], torch.zeros_like(advantages), advantages)
    return batch.with_tokens(distil_weight=weight).replace(advantages=own)


@needs("old_logp", "logits", "teacher_logits", "teacher_context", "distil_weight")
@hooks(on_scored=_teacher_entropy)
@declare(teacher=True, provides=("teacher_entropy",))
def routed_losses(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.28,
    alpha: float = 0.5,
    teacher_decay: float = 0.95,
    teacher_every: int = 1,
) -> Tensor:
    """w_it d_it for distilled rollouts, -min(rho A, clip(rho, 1 - low, 1 + high) A) for the others: [N, T].

    Args:
        alpha: of the divergence d: 0 KL(q || p), 1 KL(p || q), 1/2 Jensen-Shannon; p the policy, q the teacher.
        teacher_decay, teacher_every: teacher <- decay teacher + (1 - decay) policy, after every so many updates.

    Source: arXiv:2604.02288.
    """
    keep = batch.loss_mask & has_teacher(batch)[:, None]
    return distilled(batch, keep, alpha=alpha, weight="distil_weight", others=clipped(ratio, advantages, low, high))


@recipe(
    title="Unifying Group-Relative and Self-Distillation Policy Optimization via Sample Routing",
    paper="arXiv:2604.02288",
    idea="right rollouts by GRPO; wrong ones by what the policy says once it has seen a right one",
    confidence="exact",
)
def srpo(
    *,
    dw_beta: Annotated[float, "[0, inf)"] = 1.0,
    alpha: Annotated[float, "[0, 1]"] = 0.5,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
    threshold: Annotated[float, "(-inf, inf)"] = 1.0,
    scale_by_std: bool = False,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    feedback: str | None = None,
    solution_text: str = SOLUTION,
    feedback_text: str = FEEDBACK,
    ending: str = ENDING,
    strip_thought: bool = False,
    teacher_decay: Annotated[float, "[0, 1]"] = 0.95,
    teacher_every: Annotated[int, "[1, inf)"] = 1,
) -> Method:
    shown = {
        "threshold": threshold,
        "feedback": feedback,
        "solution_text": solution_text,
        "feedback_text": feedback_text,
        "ending": ending,
        "strip_thought": strip_thought,
        "wrong_only": True,
    }
    how = {"low": clip_low, "high": clip_high, "alpha": alpha}
    slowly = {"teacher_decay": teacher_decay, "teacher_every": teacher_every}
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps) if scale_by_std else use(advantage.centred),
        credit=(use(routes, dw_beta=dw_beta, **shown),),
        surrogate=use(routed_losses, **how, **slowly),
        aggregation=use(aggregation.token_mean),
    )
