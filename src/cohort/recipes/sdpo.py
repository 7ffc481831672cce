"""SDPO: Reinforcement Learning via Self-Distillation. arXiv:2601.20802.

Code lasgroup/SDPO; TRL. Confidence: exact.

The policy itself, shown a successful rollout of the same group (or feedback) after the question, scores the tokens of a
rollout again; its distribution q at each token is what the student's p is drawn to:

    l_it = (1 - alpha) KL(p || m) + alpha KL(q || m),  m = (1 - alpha) p + alpha q       alpha 0: KL(q || p), 1: KL(p || q)
    l_it <- l_it min(exp(clamp(logp - old_logp, -20, 20)), is_clip)                     constant factor; is_clip=None: none
    loss = mean of l over the tokens of rollouts with a teacher, or over tokens, then over all rollouts ("sequence")

mode "topk_logits" compares the student's k most likely tokens, with what is left over as one more (add_tail) or renormalised;
"sampled_token" takes stopgrad(logp - log q(y)) logp, whose mean is the gradient of KL(p || q). A demonstration is the first
rollout of the group with a reward of at least `threshold`, another than itself with `exclude_self`; `feedback` names a column
of the data. Where nothing can be shown, nothing is learned. The teacher's weights follow the policy's.

Defaults: threshold 1, is_clip 2, teacher rate 0.05 (teacher_decay 0.95), and alpha 0.5 with the top 100 and a tail (runs on
science and tools; the code runs take alpha 1 and the top 20). Left out: the trust-region teacher, which mixes logits.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation as weights
from cohort.axes import ratio
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.distill import ENDING, FEEDBACK, SOLUTION, distilled, has_teacher, teacher_contexts
from cohort.types import Batch
from cohort.types.declare import declare, hooks, needs

AGGREGATIONS = {"token": weights.token_mean, "sequence": weights.sequence_mean}


@needs("teacher_context")
def only_with_teacher(batch: Batch, advantages: Tensor) -> Batch:
    """The loss is taken over rollouts that have a teacher, and advantages, which it does not use, are 0."""
    keep = batch.loss_mask & has_teacher(batch)[:, None]
    return batch.replace(loss_mask=keep, advantages=torch.zeros_like(advantages))


@needs(
    "teacher_context",
    "teacher_logits",
    logits=lambda mode: mode != "sampled_token",
    old_logp=lambda is_clip: is_clip is not None,
)
@hooks(on_scored=teacher_contexts)
@declare(teacher=True, provides=("teacher_context",))
def self_distillation(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    mode: str = "topk_logits",
    alpha: float = 0.5,
    topk: int = 100,
    add_tail: bool = True,
    is_clip: float | None = 2.0,
    teacher_decay: float = 0.95,
    teacher_every: int = 1,
) -> Tensor:
    """l_it = c_it ((1 - alpha) KL(p || m) + alpha KL(q || m)), teacher q, student p; c = min(pi / pi_old, is_clip): [N, T].

    Args:
        teacher_decay, teacher_every: teacher <- decay teacher + (1 - decay) policy, after every so many updates.

    Source: arXiv:2601.20802.
    """
    loss = distilled(batch, batch.loss_mask, mode=mode, alpha=alpha, topk=topk, add_tail=add_tail)
    if is_clip is None:
        return loss
    return loss * (batch.logp - batch.old_logp).detach().clamp(-20, 20).exp().clamp(max=is_clip)


@recipe(
    title="Reinforcement Learning via Self-Distillation",
    paper="arXiv:2601.20802",
    idea="the policy, shown a sibling's solution, says token by token what a rollout should have been",
    confidence="exact",
)
def sdpo(
    *,
    mode: Annotated[str, ("full_logits", "topk_logits", "sampled_token")] = "topk_logits",
    alpha: Annotated[float, "[0, 1]"] = 0.5,
    topk: Annotated[int, "[1, inf)"] = 100,
    add_tail: bool = True,
    is_clip: Annotated[float | None, "(0, inf)"] = 2.0,
    aggregation: Annotated[str, tuple(AGGREGATIONS)] = "token",
    threshold: Annotated[float, "(-inf, inf)"] = 1.0,
    exclude_self: bool = True,
    feedback: str | None = None,
    feedback_only_without_solution: bool = True,
    solution_text: str = SOLUTION,
    feedback_text: str = FEEDBACK,
    ending: str = ENDING,
    strip_thought: bool = False,
    teacher_decay: Annotated[float, "[0, 1]"] = 0.95,
    teacher_every: Annotated[int, "[1, inf)"] = 1,
) -> Method:
    if mode == "sampled_token" and alpha != 1.0:
        raise MethodError(f"'sdpo': mode='sampled_token' estimates KL(p || q), so alpha must be 1, not {alpha:g}")
    shown = {
        "threshold": threshold,
        "exclude_self": exclude_self,
        "feedback": feedback,
        "feedback_only_without_solution": feedback_only_without_solution,
        "solution_text": solution_text,
        "feedback_text": feedback_text,
        "ending": ending,
        "strip_thought": strip_thought,
    }
    compared = {"mode": mode, "alpha": alpha, "topk": topk, "add_tail": add_tail, "is_clip": is_clip}
    slowly = {"teacher_decay": teacher_decay, "teacher_every": teacher_every}
    return Method(
        credit=(use(only_with_teacher),),
        ratio=use(ratio.none),
        surrogate=use(self_distillation, **compared, **shown, **slowly),
        aggregation=use(AGGREGATIONS[aggregation]),
    )
