"""Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning. arXiv:2510.19807.

Code dvlab-research/Scaf-GRPO. Confidence: exact; two places where code and paper differ are marked.

A problem has hints in three tiers, each a list of short parts: concepts (`knowledge`), a plan (`planning`), and concrete
steps (`steps`). The ladder goes through the tiers, and shows the first k parts of one, k = 1 .. per_tier; a shorter list
repeats its last rung:

    where no rollout of a group is correct:  o_l ~ pi_old(.|q, hint_l) for every rung l
    l* = the lowest rung whose rollout is correct;  o_{l*} takes the place of the group's first rollout

(The paper climbs until the first success; the code draws all rungs at once and takes the lowest: the same outcome, more
rollouts, one round of sampling. So it is here.) Advantages are those of the mixed group. The hinted rollout is trained on
the prompt that it was drawn on, so the update stays on-policy; replace_hint_prompt=True puts it behind the plain prompt, and
replace_num=2 does both, each in a place of its own. No hint is used in the first warmup_steps steps.

Defaults: warmup_steps 50, replace_num 1, four parts a tier, 8 rollouts (code, which leaves `planning` out: planning=None).
Columns: lists of texts; a text alone is a list of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cohort.axes.guidance import accuracy, draw_groups, flattened, with_guidance, without_guidance
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Group, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare

TIERS = ("knowledge", "planning", "steps")
NAMES = {"knowledge": "Knowledge", "planning": "Planning", "steps": "Solution"}
WITH_HINT = "Question: {question}\n{text}"


def ladder(parts: Sequence[Sequence[str]], *, per_tier: int = 4) -> list[tuple[int, list[str]]]:
    """(tier, the parts shown) of every rung, `per_tier` rungs a tier; a tier without parts has none."""
    return [
        (tier, list(own[: min(k, len(own))])) for tier, own in enumerate(parts) if own for k in range(1, per_tier + 1)
    ]


def lowest(climbed: Group) -> Rollout | None:
    """The correct rollout of the lowest rung; None if none is correct."""
    right = [rollout for rollout in climbed.rollouts if rollout.accuracy > 0]
    return min(right, key=lambda rollout: rollout.request.meta["hint_level"], default=None)


def _parts(value: Any) -> list[str]:
    return [str(part) for part in ([value] if isinstance(value, str) else value or [])]


def replaced(group: Group, hinted: Rollout, *, twice: bool, plainly: bool) -> Group:
    """The group with the hinted rollout in place of its first: behind the hint, or `plainly` behind the prompt as it is.
    `twice`: both, in place of its first two."""
    ways = [hinted, without_guidance(hinted)]
    new = (ways if twice else ways[plainly:][:1])[: len(group.rollouts)]
    return Group(group.prompt, (*new, *group.rollouts[len(new) :]))


@declare(columns=TIERS)
def scaffold(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    knowledge: str | None = "knowledge",
    planning: str | None = "planning",
    steps: str | None = "steps",
    per_tier: int = 4,
    warmup_steps: int = 50,
    replace_num: int = 1,
    replace_hint_prompt: bool = False,
) -> list[Rollout]:
    """Draw every group; the weakest hint that leads to a success gives an unsolved one a rollout. Source: arXiv:2510.19807."""
    groups = draw_groups(sampler, requests)
    if sampler.step < warmup_steps:
        return flattened(groups.values())
    columns = {name: column for name, column in zip(TIERS, (knowledge, planning, steps), strict=True) if column}
    asked = []
    for group in groups.values():
        if accuracy(group):
            continue
        rungs = ladder([_parts(group.prompt.row.get(column)) for column in columns.values()], per_tier=per_tier)
        first = next(request for request in requests if request.prompt.id == group.prompt.id)
        for rung, (tier, shown) in enumerate(rungs, 1):
            text = f"{NAMES[[*columns][tier]]} Hints: {' '.join(shown)}"
            asked.append(with_guidance(first, WITH_HINT, text, sampler, salt=rung, hint_level=rung))
    for key, climbed in draw_groups(sampler, asked).items():
        hinted = lowest(climbed)
        if hinted is not None:
            groups[key] = replaced(groups[key], hinted, twice=replace_num > 1, plainly=replace_hint_prompt)
    return flattened(groups.values())


@recipe(
    title="Scaf-GRPO: Scaffolded Group Relative Policy Optimization for Enhancing LLM Reasoning",
    paper="arXiv:2510.19807",
    idea="the weakest of a ladder of hints that leads to a success gives an unsolved group one rollout",
    confidence="exact",
)
def scaf_grpo(
    *,
    knowledge: str | None = "knowledge",
    planning: str | None = "planning",
    steps: str | None = "steps",
    per_tier: Annotated[int, "[1, inf)"] = 4,
    warmup_steps: Annotated[int, "[0, inf)"] = 50,
    replace_num: Annotated[int, (1, 2)] = 1,
    replace_hint_prompt: bool = False,
) -> Method:
    columns = {"knowledge": knowledge, "planning": planning, "steps": steps}
    if not any(columns.values()):
        raise MethodError("'scaf-grpo' needs a column of hints: knowledge, planning or steps")
    how = {"replace_num": replace_num, "replace_hint_prompt": replace_hint_prompt, "per_tier": per_tier}
    return Method(guidance=use(scaffold, **columns, **how, warmup_steps=warmup_steps))
