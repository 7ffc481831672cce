"""GRPO-CARE: Consistency-Aware Reinforcement Learning for Multimodal Reasoning. arXiv:2506.16141, code TencentARC/GRPO-CARE.

Confidence: exact; ours: a rollout without answer tokens has confidence 0, comparisons pass within 1e-9.

A right answer should be likely given the rollout's own reasoning. A slowly moving copy of the policy says how likely:

    c_i = min(exp(mean over the answer's tokens of its logp), confidence_upper)
    S   = { i : a_i > 0.1 and a_i >= mean_g a },   m = mean of c over S
    R_i = r_i + bonus_coefficient a_i [i in S and c_i >= m - margin]

a is what the run's verifier calls correct, or the reward `accuracy_reward` where accuracy is graded; r is the run's
reward (accuracy + format in the paper, as --reward exact --reward 'format:...'). In an all-right group the bonus alone
ranks rollouts. The copy is teacher <- teacher_decay teacher + (1 - teacher_decay) policy, every teacher_every updates.
No KL term. The answer stands after the last open_tag, up to close_tag or the end.

Defaults: the paper's; margin 0 (SEED-Bench-R1; 0.01 in its transfer run).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_sum, token_sum
from cohort.signals.components import component
from cohort.signals.spans import answer_span, text_ends, tokens_within
from cohort.types import Batch, Groups, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

ACCURATE = 0.1
_SLACK = 1e-9


def teachers_view(
    batch: Batch, access: ModelAccess, *, open_tag: str = "<answer>", close_tag: str = "</answer>"
) -> Batch:
    """One forward pass of the teacher over every rollout.

    An on_scored hook: the batch with its `ema_ref_logp`, and the `answer_mask` of the tokens of the answer [N, T].
    """
    spans = [answer_span(rollout.text, open_tag, close_tag) for rollout in access.rollouts]
    contexts = [rollout.context for rollout in access.rollouts]
    logp = access.log_probs(contexts, [rollout.tokens for rollout in access.rollouts], role="ema")["logp"]
    return batch.with_tokens(
        answer_mask=tokens_within(text_ends(batch, access), spans), ema_ref_logp=logp.to(batch.device)
    )


def clamped(likelihood: Tensor, *, confidence_upper: float | None) -> Tensor:
    """min(p, confidence_upper): [N]."""
    return likelihood if confidence_upper is None else likelihood.clamp(max=confidence_upper)


def answer_likelihood(logp: Tensor, answer: Tensor) -> Tensor:
    """[N] exp(mean of logp [N, T] over the tokens of answer [N, T]); 0 where there are none."""
    count = answer.sum(1)
    likelihood = (token_sum(logp, answer) / (count + 1e-6)).exp()
    return torch.where(count > 0, likelihood, torch.zeros_like(likelihood))


def consistency_bonus(
    confidence: Tensor, accuracy: Tensor, groups: Groups, *, bonus_coefficient: float, margin: float
) -> Tensor:
    """bonus_coefficient a_i for accurate rollouts whose confidence reaches that of the group's accurate ones: [N]."""
    average = group_mean(accuracy, groups)[groups.index]
    accurate = ((accuracy > ACCURATE) & (accuracy >= average - _SLACK)).to(accuracy.dtype)
    common = group_sum(accurate * confidence, groups) / group_sum(accurate, groups).clamp(min=1)
    confident = confidence >= common[groups.index] - margin - _SLACK
    return torch.where(confident, bonus_coefficient * accurate * accuracy, torch.zeros_like(accuracy))


@needs("answer_mask", "ema_ref_logp")
@hooks(on_scored=teachers_view)
@declare(group_size=2, teacher=True, components=("accuracy_reward",), provides=("answer_mask", "ema_ref_logp"))
def consistency_reward(
    batch: Batch,
    *,
    bonus_coefficient: float = 0.5,
    margin: float = 0.0,
    confidence_upper: float | None = 0.95,
    accuracy_reward: str | None = None,
    teacher_decay: float = 0.995,
    teacher_every: int = 10,
    info: StepInfo,
) -> Tensor:
    """R_i = r_i + bonus_coefficient a_i for right rollouts whose answer the teacher finds likely: [N].

    Source: arXiv:2506.16141.
    """
    # In float64, so that equal values stay equal to their mean.
    accuracy = (batch["accuracy"] if accuracy_reward is None else component(batch, accuracy_reward, info)).double()
    likelihood = answer_likelihood(batch["ema_ref_logp"].double(), batch["answer_mask"].bool())
    confidence = clamped(likelihood, confidence_upper=confidence_upper)
    how = {"bonus_coefficient": bonus_coefficient, "margin": margin}
    return batch.rewards + consistency_bonus(confidence, accuracy, batch.groups, **how).to(batch.dtype)


@recipe(
    title="GRPO-CARE: Consistency-Aware Reinforcement Learning for Multimodal Reasoning",
    paper="arXiv:2506.16141",
    idea="a bonus for right answers that follow from their own reasoning, by a slow copy of the policy",
    confidence="exact",
)
def grpo_care(
    *,
    bonus_coefficient: Annotated[float, "[0, inf)"] = 0.5,
    margin: Annotated[float, "[0, inf)"] = 0.0,
    confidence_upper: Annotated[float | None, "(0, 1]"] = 0.95,
    accuracy_reward: str | None = None,
    teacher_decay: Annotated[float, "[0, 1]"] = 0.995,
    teacher_every: Annotated[int, "[1, inf)"] = 10,
    open_tag: str = "<answer>",
    close_tag: str = "</answer>",
) -> Method:
    bonus = {"bonus_coefficient": bonus_coefficient, "margin": margin, "confidence_upper": confidence_upper}
    teacher = {"teacher_decay": teacher_decay, "teacher_every": teacher_every}
    tags = {"open_tag": open_tag, "close_tag": close_tag}
    return Method(shaping=(use(consistency_reward, accuracy_reward=accuracy_reward, **bonus, **teacher, **tags),))
