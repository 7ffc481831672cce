"""iGRPO: Self-Feedback-Driven LLM Reasoning (Iterative Group Relative Policy Optimization). arXiv:2602.09000.

Confidence: exact, but for the words that join question and draft, how an odd budget is split, and ties.

The policy learns to improve on its own best attempt. A prompt's rollouts are spent in two stages:

    d_1 .. d_N ~ pi_old(.|q)              drafts: rewarded, never trained on;  N = floor(group_size / 2)
    q' = q + d_k,  k = argmax_i R(d_i)    the best of them (the first of equals) becomes part of the prompt
    o_1 .. o_G ~ pi_old(.|q')             the rest of the budget: trained on by GRPO, behind q'

With no draft this is GRPO. It is a wrapper: `dapo+igrpo` or `gspo+igrpo` train the second stage their way. A draft that does
not fit into the model's context is cut from the left. Evaluation is a single shot without drafts.

Defaults: half of the budget (8 rollouts a prompt as 4 + 4; the paper also has 8 + 8), no KL, sample standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cohort.axes.guidance import by_prompt, draw_groups, with_guidance
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Group, Request, Rollout
from cohort.types.access import Sampler

WITH_DRAFT = """{question}

Here is an earlier attempt at this question. It may be right or wrong:

{text}

Improve on it: keep what is right, correct what is wrong, and answer the question."""


def split(total: int, drafts: int | None = None) -> tuple[int, int]:
    """(drafts, refinements) of a prompt's rollouts: half of them, rounded down, or `drafts`; one refinement is left."""
    count = total // 2 if drafts is None else min(drafts, total - 1)
    return count, total - count


def best(drafts: Group) -> Rollout:
    """The draft of the highest reward, the first of equals."""
    return max(drafts.rollouts, key=lambda rollout: rollout.reward)


def improved_drafts(requests: Sequence[Request], sampler: Sampler, *, drafts: int | None = None) -> list[Rollout]:
    """Draw some of each prompt's rollouts, and the rest with the best of them in the prompt. Source: arXiv:2602.09000."""
    first, second = [], []
    for members in by_prompt(requests).values():
        count, _ = split(len(members), drafts)
        first += members[:count]
        second += members[count:]
    shown = {key: best(group).text for key, group in draw_groups(sampler, first).items()}
    return sampler.draw([with_guidance(r, WITH_DRAFT, shown.get(r.prompt.id, ""), sampler) for r in second])


@recipe(
    title="iGRPO: Self-Feedback-Driven LLM Reasoning",
    paper="arXiv:2602.09000",
    idea="half of the rollouts are drafts; the other half improve on the best one",
    confidence="exact",
)
def igrpo(*, drafts: Annotated[int | None, "[0, inf)"] = None) -> Method:
    return Method(guidance=use(improved_drafts, drafts=drafts))
