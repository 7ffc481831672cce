"""Learning from a teacher's whole next-token distribution: divergences, and a teacher that was shown more than the student."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cohort.reductions.groups import group_min
from cohort.signals.questions import question, rendered
from cohort.types import Batch, Groups
from cohort.types.access import ModelAccess

SOLUTION = "\n\nCorrect solution:\n\n{}"
FEEDBACK = "\n\nThe following is feedback from your unsuccessful earlier attempt:\n\n{}"
ENDING = "\n\nCorrectly solve the original question."

# The whole mass cannot be told from slightly less than it, and the log of what is left over must stay finite.
FULL_MASS = -1e-7


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def divergence(log_p: Tensor, log_q: Tensor, *, alpha: float) -> Tensor:
    """[...] between student p and teacher q, both [..., V] as log-probabilities.

    Args:
        alpha: 0 gives KL(q || p), 1 gives KL(p || q), between them (1 - alpha) KL(p || m) + alpha KL(q || m) with
            m = (1 - alpha) p + alpha q: the Jensen-Shannon divergence at 1/2, and near 0 or 1 almost nothing. There q gets
            no gradient.
    """
    if alpha == 0.0:
        return _kl(log_q, log_p)
    if alpha == 1.0:
        return _kl(log_p, log_q)
    between: Tensor = _GeneralizedJSD.apply(log_p, log_q, alpha)  # type: ignore[no-untyped-call]
    return between


class _GeneralizedJSD(torch.autograd.Function):
    """(1 - alpha) KL(p || m) + alpha KL(q || m), whose derivative by log p is (1 - alpha) p (log p - log m): taking it from
    that keeps one tensor rather than all the way there. q gets no gradient."""

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
        p, q = log_p.exp(), log_q.exp()
        # Where both underflow there is nothing to count.
        log_m = torch.lerp(p, q, alpha).clamp_(min=torch.finfo(p.dtype).tiny).log_()
        taken = (log_p - log_m).mul_(p).mul_(1 - alpha)
        ctx.save_for_backward(taken)
        return taken.sum(-1).add_(q.mul_(log_m.neg_().add_(log_q)).sum(-1), alpha=alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        (taken,) = ctx.saved_tensors
        return taken * grads[0][..., None], None, None


def top_k_of_both(log_p: Tensor, log_q: Tensor, *, k: int, tail: bool) -> tuple[Tensor, Tensor]:
    """Both distributions on the student's k most likely tokens: [..., k + 1] with what is left over as one more bucket, or
    [..., k] renormalised."""
    index = log_p.topk(min(k, log_p.shape[-1]), -1).indices

    def bucketed(log_x: Tensor) -> Tensor:
        top = log_x.gather(-1, index)
        if not tail:
            return top.log_softmax(-1)
        mass = top.logsumexp(-1, keepdim=True).clamp(max=FULL_MASS)
        return torch.cat([top, (-torch.expm1(mass)).log()], -1)

    return bucketed(log_p), bucketed(log_q)


def distilled(
    batch: Batch,
    keep: Tensor,
    *,
    alpha: float,
    mode: str = "full_logits",
    topk: int = 100,
    add_tail: bool = True,
    weight: str | None = None,
    others: Tensor | None = None,
) -> Tensor:
    """Losses [N, T] of the student's tokens against the teacher's distribution, which has no gradient.

    Args:
        keep: [N, T] bool, the tokens that are distilled, within the mask.
        weight: token field that the losses are multiplied by.
        others: losses [N, T] of the tokens that are not distilled; 0 if not given.
        mode: "full_logits", "topk_logits" (see `top_k_of_both`), or "sampled_token": stopgrad(logp - log q(y)) logp, whose
            expected gradient is that of KL(p || q).
    """
    places = keep.flatten().nonzero()[:, 0]
    log_q = batch.picked("teacher_logits", places).detach().log_softmax(-1)
    if mode == "sampled_token":
        logp = batch.picked("logp", places)
        teacher_logp = log_q.gather(-1, batch.picked("token_ids", places)[:, None])[:, 0]
        loss = (logp - teacher_logp).detach() * logp
    else:
        log_p = batch.picked("logits", places).log_softmax(-1)
        if mode == "topk_logits":
            log_p, log_q = top_k_of_both(log_p, log_q, k=topk, tail=add_tail)
        loss = divergence(log_p, log_q, alpha=alpha)
    if weight is not None:
        loss = loss * batch.picked(weight, places)
    out = torch.zeros_like(batch.logp) if others is None else others
    return out.flatten().index_copy(0, places, loss.to(out.dtype)).view_as(keep)


def demonstrations(correct: Tensor, groups: Groups, *, exclude_self: bool = True) -> Tensor:
    """[N] int64: the row of the first correct rollout of the group, another one where `exclude_self`; -1 if there is none."""
    count = correct.numel()
    place = torch.arange(count, device=correct.device)
    first = group_min(torch.where(correct, place, count), groups)[groups.index]
    if exclude_self:
        second = group_min(torch.where(correct & (place != first), place, count), groups)[groups.index]
        first = torch.where(first == place, second, first)
    return torch.where(first < count, first, -1)


def teacher_inputs(
    correct: Tensor,
    groups: Groups,
    has_feedback: Tensor,
    *,
    exclude_self: bool = True,
    feedback_only_without_solution: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the teacher of each rollout is shown: (row of a demonstration or -1, [N] bool: its feedback)."""
    demonstration = demonstrations(correct, groups, exclude_self=exclude_self)
    alone = demonstration < 0 if feedback_only_without_solution else torch.ones_like(has_feedback)
    return demonstration, has_feedback & alone


def teacher_contexts(
    batch: Batch,
    access: ModelAccess,
    *,
    threshold: float = 1.0,
    wrong_only: bool = False,
    exclude_self: bool = True,
    feedback: str | None = None,
    feedback_only_without_solution: bool = True,
    solution_text: str = SOLUTION,
    feedback_text: str = FEEDBACK,
    ending: str = ENDING,
    strip_thought: bool = False,
) -> Batch:
    """no model call: the prompts rendered again, with what the teacher is shown

    on_scored hook: the batch with `teacher_context` [N, C] int64, the question, after it what is shown, then -1. A row of -1
    has no teacher: there is nothing to show it, it is correct and only wrong ones get a teacher, it is empty, or it would
    not fit into the model's context with what is shown.

    Args:
        threshold: reward from which a rollout is correct, and can be shown as a solution.
        feedback: column of the data with feedback on wrong attempts.
        solution_text, feedback_text: what introduces each, with {} in its place; ending: what comes last.
        strip_thought: show a solution without what comes before its last </think>.
    """
    correct = batch.rewards >= threshold
    comments = [str(text or "") for text in access.column(feedback)] if feedback else [""] * batch.size
    has_feedback = torch.tensor([bool(text) for text in comments], device=correct.device)
    how = {"exclude_self": exclude_self, "feedback_only_without_solution": feedback_only_without_solution}
    demonstration, use_feedback = teacher_inputs(correct, batch.groups, has_feedback, **how)
    wanted = batch.mask.any(1) & ((demonstration >= 0) | use_feedback) & ~(correct & wrong_only)
    contexts: list[tuple[int, ...]] = []
    for i, rollout in enumerate(access.rollouts):
        context: tuple[int, ...] = ()
        if wanted[i]:
            shown = question(rollout.prompt)
            if demonstration[i] >= 0:
                solution = access.rollouts[int(demonstration[i])].text
                shown += solution_text.replace("{}", solution.rpartition("</think>")[2] if strip_thought else solution)
            if use_feedback[i]:
                shown += feedback_text.replace("{}", comments[i])
            context = rendered(rollout.prompt, shown + ending, access.render)
            if access.context_length is not None and len(context) + len(rollout.tokens) > access.context_length:
                context = ()
        contexts.append(context)
    width = max([1, *(len(context) for context in contexts)])
    padded = [[*context, *[-1] * (width - len(context))] for context in contexts]
    return batch.with_rollouts(teacher_context=torch.tensor(padded, dtype=torch.int64, device=batch.device))


def has_teacher(batch: Batch) -> Tensor:
    """[N] bool: the rollouts that a teacher has a context of its own for."""
    return batch["teacher_context"][:, 0] >= 0
