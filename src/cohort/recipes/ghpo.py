"""GHPO: Adaptive Guidance for Stable and Efficient LLM Reinforcement Learning. arXiv:2507.10628.

Guided Hybrid Policy Optimization. Code hkgc-1/GHPO. Confidence: exact.

A prompt that no rollout solves is rolled out again with the beginning of its reference solution, a longer one each time:

    stage s = 1, 2, 3:  where no rollout of the group is correct, all of them are drawn anew on
                        q_s = q + solution[: round(ratio_s L)],  L the characters of the solution, half to even

The new group takes the place of the old one, solved or not. Rollouts are trained on the prompt that they were drawn on, so
the update stays on-policy. Accuracy alone decides; a reward for the format counts in the advantages. In the released code a
group solved at an early stage is paired with the plain prompt again when another goes on to a later one; here it is not.
Evaluation shows no solution.

Before step start_hint_step (counted from 0) only the plain prompt is drawn.

Defaults: ratios 0.25, 0.5, 0.75 and start_hint_step 0 (paper, configuration; reward weights 1 and 0.5 for accuracy and format,
learning rate 1e-6, sample standard deviation with eps 1e-4, token mean, no KL). Column `solution`: the reference solution.
"""

from __future__ import annotations

from collections.abc import Sequence

from cohort.axes.guidance import accuracy, draw_groups, flattened, with_guidance
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare

WITH_BEGINNING = (
    "{question}\n The following text is the beginning part of the answer, which you can refer to for solving the problem:\n"
    "{text}"
)


def beginning(solution: str, ratio: float) -> str:
    """The first round(ratio L) of L characters."""
    return solution[: round(ratio * len(solution))]


@declare(columns=("solution",))
def solution_prefixes(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    solution: str = "solution",
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75),
    start_hint_step: int = 0,
) -> list[Rollout]:
    """Draw every group; redraw unsolved ones with longer and longer beginnings of the solution. Source: arXiv:2507.10628."""
    groups = draw_groups(sampler, requests)
    for stage, ratio in enumerate(ratios if sampler.step >= start_hint_step else (), 1):
        difficult = {key for key, group in groups.items() if not accuracy(group)}
        again = [
            with_guidance(
                request,
                WITH_BEGINNING,
                beginning(str(request.prompt.row.get(solution) or ""), ratio),
                sampler,
                salt=stage,
                hint_stage=stage,
            )
            for request in requests
            if request.prompt.id in difficult
        ]
        groups |= draw_groups(sampler, again)
    return flattened(groups.values())


@recipe(
    title="GHPO: Adaptive Guidance for Stable and Efficient LLM Reinforcement Learning",
    paper="arXiv:2507.10628",
    idea="prompts that stay unsolved show the beginning of their solution, more of it each time",
    confidence="exact",
)
def ghpo(
    *, solution: str = "solution", ratios: tuple[float, ...] = (0.25, 0.5, 0.75), start_hint_step: int = 0
) -> Method:
    if not ratios or list(ratios) != sorted(set(ratios)) or not 0 < ratios[0] <= ratios[-1] <= 1:
        raise MethodError(f"'ghpo': ratios={ratios!r} must be rising shares of the solution, such as (0.25, 0.5, 0.75)")
    how = {"ratios": tuple(ratios), "start_hint_step": start_hint_step}
    return Method(guidance=use(solution_prefixes, solution=solution, **how))
