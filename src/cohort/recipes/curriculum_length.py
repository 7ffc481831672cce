"""Train Long, Think Short: Curriculum Learning for Efficient Reasoning. arXiv:2508.08940.

Code hammoudhasan/curriculum_grpo. Confidence: exact (lambda_f, alpha_think, alpha_answer, r_cor, r_max, the test for a
well-formed tag and the rounding of the budget are inferred).

    r_i = lambda_c r_cor c_i + lambda_l R_len(l_i) + lambda_f (alpha_think I_think + alpha_answer I_answer)
    R_len = r_max l / L (1 in the band) up to the budget L, falling linearly to 0 at 2 L, and 0 beyond
    L = max(1, floor(start decay^floor(t / interval)))                       schedule="exponential"
    L = floor(start (end / start)^(k / n))                                   "stepwise"
    L = floor(start + (end - start) k / n)                                   "linear"

t: steps before this one; k = min(n, floor(t (n + 1) / total)), n drops. I is 1 where a tag opens and closes exactly
once, in this order, and the two spans do not overlap. c_i is the verifier's 0 or 1; of other rewards nothing counts.
The budget also stands in the prompt that rollouts are drawn from and trained on; evaluation goes without it.

Defaults: 256 tokens, times 0.7 every 150 steps, and the length-heavy weights 0.3, 0.6 (paper; correctness-heavy 0.6,
0.3); total: the run's steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.questions import question, rewrite_question
from cohort.signals.spans import tagged_once
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import ModelAccess, Sampler
from cohort.types.declare import declare, hooks, needs

SENTENCE = "\n\nThe response should use exactly {budget} tokens."


def budget(
    step: int,
    *,
    schedule: str,
    start: float,
    decay: float,
    interval: int,
    end: float,
    drops: int,
    total: int | None,
    steps: int = 1,
) -> int:
    """L in tokens, at a step counted from 0; total None is the run's `steps`."""
    if schedule == "exponential":
        return max(1, math.floor(start * decay ** (step // interval) + 1e-9))
    share = min(drops, step * (drops + 1) // (total or steps)) / drops
    value = start * (end / start) ** share if schedule == "stepwise" else start + (end - start) * share
    return math.floor(value + 1e-9)


def length_reward(lengths: Tensor, *, target: float, r_max: float, shape: str) -> Tensor:
    """R_len of lengths [N] for a budget of `target` tokens."""
    relative = lengths / target
    rising = torch.ones_like(relative) if shape == "band" else relative
    return r_max * torch.where(relative <= 1, rising, (2 - relative).clamp(min=0))


def find_spans(batch: Batch, access: ModelAccess) -> Batch:
    """Read in the texts. The batch with `has_think` and `has_answer` [N]."""
    think, answer = (
        torch.tensor([tagged_once(rollout.text) for rollout in access.rollouts], device=batch.device).float().T
    )
    return batch.with_rollouts(has_think=think, has_answer=answer)


def budget_in_prompt(
    requests: Sequence[Request], sampler: Sampler, *, plan: Mapping[str, Any], sentence: str = SENTENCE
) -> list[Rollout]:
    """The prompts with a sentence that says how many tokens to use. Source: arXiv:2508.08940."""
    if not sentence:
        return sampler.draw(requests)
    said = sentence.replace("{budget}", str(budget(sampler.step, steps=sampler.steps, **plan)))
    return sampler.draw([rewrite_question(request, question(request.prompt) + said, sampler) for request in requests])


@needs("has_think", "has_answer")
@hooks(on_scored=find_spans)
@declare(provides=("has_think", "has_answer"))
def budgeted_reward(
    batch: Batch,
    *,
    plan: Mapping[str, Any],
    weights: tuple[float, float, float],
    r_cor: float = 1.0,
    r_max: float = 1.0,
    alpha_think: float = 0.5,
    alpha_answer: float = 0.5,
    shape: str = "triangle",
    info: StepInfo,
) -> Tensor:
    """lambda_c r_cor c_i + lambda_l R_len(l_i) + lambda_f R_fmt: [N]. Source: arXiv:2508.08940."""
    target = budget(info.step, steps=info.steps, **plan)
    form = alpha_think * batch["has_think"].to(batch.dtype) + alpha_answer * batch["has_answer"].to(batch.dtype)
    length = length_reward(batch.lengths, target=target, r_max=r_max, shape=shape)
    return weights[0] * r_cor * batch["accuracy"] + weights[1] * length + weights[2] * form


@recipe(
    title="Train Long, Think Short: Curriculum Learning for Efficient Reasoning",
    paper="arXiv:2508.08940",
    idea="a token budget that shrinks over training, in the prompt and in the reward",
    confidence="exact",
)
def curriculum_length(
    *,
    schedule: Annotated[str, ("exponential", "stepwise", "linear")] = "exponential",
    start: Annotated[float, "[1, inf)"] = 256,
    decay: Annotated[float, "(0, 1]"] = 0.7,
    interval: Annotated[int, "[1, inf)"] = 150,
    end: Annotated[float, "[1, inf)"] = 87,
    drops: Annotated[int, "[1, inf)"] = 3,
    total: Annotated[int | None, "[1, inf)"] = None,
    lambda_c: Annotated[float, "[0, inf)"] = 0.3,
    lambda_l: Annotated[float, "[0, inf)"] = 0.6,
    lambda_f: Annotated[float, "[0, inf)"] = 0.1,
    r_cor: Annotated[float, "[0, inf)"] = 1.0,
    r_max: Annotated[float, "[0, inf)"] = 1.0,
    alpha_think: Annotated[float, "[0, inf)"] = 0.5,
    alpha_answer: Annotated[float, "[0, inf)"] = 0.5,
    shape: Annotated[str, ("triangle", "band")] = "triangle",
    sentence: str = SENTENCE,
) -> Method:
    if sentence and "{budget}" not in sentence:
        raise MethodError(f"'curriculum-length': sentence={sentence!r} must say the {{budget}}, or be empty")
    plan = {"schedule": schedule, "start": start, "decay": decay, "interval": interval, "end": end, "drops": drops}
    plan = {**plan, "total": total}
    form = {"r_cor": r_cor, "r_max": r_max, "alpha_think": alpha_think, "alpha_answer": alpha_answer, "shape": shape}
    return Method(
        guidance=use(budget_in_prompt, plan=plan, sentence=sentence),
        shaping=(use(budgeted_reward, plan=plan, weights=(lambda_c, lambda_l, lambda_f), **form),),
    )
