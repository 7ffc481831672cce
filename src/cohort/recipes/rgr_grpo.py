"""RGR-GRPO: Reward and Guidance through Rubrics, Promoting Exploration to Improve Multi-Domain Reasoning. arXiv:2511.12344.

Confidence: reconstructed: denominator of the shaping, gamma, rubrics without factual criteria. Left out: the length penalty,
which the paper does not specify. Known: rubric reward, assessment, self-refinement, the objective without clip and KL.

A question has a rubric, criteria k of weight w_k, each factual (a result) or of the process. A judge says s_k in {0, 1}:

    r(o) = 1 if all factual criteria are satisfied, else sum_k w_k s_k / sum_k w_k
    o_1 .. o_{G-1} ~ pi_old(.|q);  o_best the first of the highest r
    o_G ~ pi_old(.|q) if o_best satisfies all criteria, else ~ pi_old(.|q, o_best, the criteria it fails)
    loss = -(1/N) sum_i sum_t f_it A_i,   f = pi / pi_old;   of a refined o_G  f = pi / (pi_old + gamma)

All probabilities are behind the plain q, so that the policy learns to refine unasked. shaper_denominator="current":
f = pi / (pi + gamma), which favours unlikely tokens. aggregation="seq" divides by the length of each rollout.

r takes the place of what the run's rewards said, whose accuracy stays. The column `rubric` holds lists of {"criterion",
"weight", "factual"}. Without judge="path.py:function" the policy judges itself, with a question for each criterion.

Defaults: gamma 0.1 is ours; the rest is the paper's (8 rollouts, learning rate 1e-6, rubrics written by o3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes import aggregation as weights
from cohort.axes import ratio, surrogate
from cohort.axes.guidance import by_prompt, draw_groups, flattened, with_guidance, without_guidance
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.rubrics import CALL, judged, rubric_of, rubric_reward
from cohort.types import Batch, Request, Rollout, grouped
from cohort.types.access import Judge, Sampler
from cohort.types.declare import State, declare, hooks, needs

WITH_ATTEMPT = """{question}

Here is an attempt, and what it lacks:

{text}

Answer the question again, in a way that does not lack it."""
AGGREGATIONS = {"token-sum": weights.token_sum, "seq": weights.sequence_mean}


def _check(rows: Sequence[Mapping[str, Any]] = (), *, rubric: str) -> State:
    """Read the rubrics of all rows before anything is drawn."""
    for number, row in enumerate(rows, 1):
        rubric_of(row.get(rubric), f"row {number} of the training data, column '{rubric}'")
    return {}


@hooks(init=_check)
@declare(columns=("rubric",), functions={"judge": CALL}, provides=("refined",))
def refined_by_rubric(
    requests: Sequence[Request], sampler: Sampler, *, rubric: str = "rubric", judge: Judge | None = None
) -> list[Rollout]:
    """Draw all but one rollout of each group, and the last with what the best of them lacks. Source: arXiv:2511.12344."""
    members = by_prompt(requests)
    criteria = {key: rubric_of(own[0].prompt.row.get(rubric), own[0].prompt.where) for key, own in members.items()}

    def drawn(asked: Sequence[Request]) -> dict[str, list[tuple[Rollout, list[str]]]]:
        """Rollouts with the reward of their rubric, and what each lacks."""
        rollouts = flattened(draw_groups(sampler, asked).values())
        rubrics = [criteria[rollout.prompt.id] for rollout in rollouts]
        out: dict[str, list[tuple[Rollout, list[str]]]] = {}
        for rollout, own, marks in zip(rollouts, rubrics, judged(rollouts, rubrics, sampler, judge), strict=True):
            lacks = [each.text for each, met in zip(own, marks.tolist(), strict=True) if not met]
            reward = float(rubric_reward(marks[None], own))
            logged = {**rollout.logged, "lacks": "; ".join(lacks)}
            out.setdefault(rollout.prompt.id, []).append((rollout.replace(reward=reward, logged=logged), lacks))
        return out

    first = drawn([request for own in members.values() for request in own[:-1]])
    # The first of the highest reward.
    best = {key: max(pairs, key=lambda pair: pair[0].reward) for key, pairs in first.items()}
    shown = {
        key: "\n\n".join([rollout.text, *(f"- {each}" for each in lacks)]) if lacks else ""
        for key, (rollout, lacks) in best.items()
    }
    last = [with_guidance(own[-1], WITH_ATTEMPT, shown.get(key, ""), sampler) for key, own in members.items()]
    out = [rollout for pairs in first.values() for rollout, _ in pairs]
    for rollout in (rollout for pairs in drawn(last).values() for rollout, _ in pairs):
        refined = rollout.request.context.tokens != rollout.prompt.tokens
        marked = rollout.replace(fields={**rollout.fields, "refined": 1.0})
        out.append(without_guidance(marked) if refined else rollout)
    return flattened(grouped(out))


@needs("old_logp", "refined")
def refined_ratio(batch: Batch, *, gamma: float = 0.1, shaper_denominator: str = "old") -> Tensor:
    """pi / pi_old; of refined rollouts pi / (pi_old + gamma), or pi / (pi + gamma): [N, T]. Source: arXiv:2511.12344."""
    below = batch.old_logp if shaper_denominator == "old" else batch.logp
    level = torch.full_like(below, gamma).log()
    shaped = (batch.logp - torch.logaddexp(below, level)).exp()
    return torch.where(batch["refined"][:, None] > 0, shaped, ratio.token(batch))


@recipe(
    title="Reward and Guidance through Rubrics: Promoting Exploration to Improve Multi-Domain Reasoning",
    paper="arXiv:2511.12344",
    idea="rubrics reward every answer, and say what the best one lacks before the last is drawn",
    confidence="reconstructed: denominator of the shaping, gamma, rubrics without factual criteria",
)
def rgr_grpo(
    *,
    rubric: str = "rubric",
    judge: str | None = None,
    gamma: Annotated[float, "[0, 1)"] = 0.1,
    shaper_denominator: Annotated[str, ("old", "current")] = "old",
    aggregation: Annotated[str, tuple(AGGREGATIONS)] = "token-sum",
) -> Method:
    if shaper_denominator == "current" and not gamma:
        raise MethodError(
            "'rgr-grpo': pi / (pi + gamma) is 1 without gamma: give shaper_denominator='current' one above 0"
        )
    return Method(
        guidance=use(refined_by_rubric, rubric=rubric, judge=judge),
        ratio=use(refined_ratio, gamma=gamma, shaper_denominator=shaper_denominator),
        surrogate=use(surrogate.unclipped),
        aggregation=use(AGGREGATIONS[aggregation]),
    )
