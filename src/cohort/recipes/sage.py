"""SAGE: Self-Hinting Language Models Enhance Reinforcement Learning. arXiv:2602.03143.

Code BaohaoLiao/SAGE. Confidence: exact (the wording of the prompts is ours).

A prompt that no rollout solves wastes its group. The current policy is shown the reference solution and writes three
hints of growing strength; the prompt is rolled out again with hint 1, 2, 3 until some rollout earns a reward. Rollouts
are scored and trained on the prompt that produced them, so the update stays on-policy. Evaluation uses no hint.

variant="light" chooses the level before rolling out, from the accuracy a of the prompt's last visit:
a <= tau_min: one level up; a > tau_max: one level down.

Defaults: tau_min 0.1, tau_max 0.35 (launch script). The column `solution` holds the reference solution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.hints import LEVELS, with_hint, write_hints
from cohort.types import Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks


@declare(columns=("solution",))
def hint_search(requests: Sequence[Request], sampler: Sampler, *, solution: str = "solution") -> list[Rollout]:
    """Draw without a hint, then redraw every unsolved group with stronger and stronger hints. Source: section 3."""
    rollouts = sampler.draw(requests)
    hints: dict[str, dict[str, str]] | None = None
    for level in range(1, LEVELS + 1):
        solved = {r.prompt.id for r in rollouts if r.reward > 0}
        unsolved = {r.prompt.id: r.prompt for r in rollouts if r.prompt.id not in solved}
        if not unsolved:
            break
        if hints is None:
            hints = write_hints(unsolved, sampler, solution)
        again = [r for r in requests if r.prompt.id in unsolved and str(level) in hints.get(r.prompt.id, {})]
        if not again:
            continue
        hinted = [with_hint(r, hints[r.prompt.id][str(level)], level, sampler, salt=level) for r in again]
        replaced = {r.prompt.id for r in again}
        rollouts = [r for r in rollouts if r.prompt.id not in replaced] + sampler.draw(hinted)
    return rollouts


def next_level(record: Mapping[str, Any] | None, *, tau_min: float, tau_max: float) -> int:
    """Hint level (0 .. 3) of a prompt's next visit, from the level and accuracy of its last one."""
    if record is None:
        return 0
    level = int(record["level"])
    if record["accuracy"] <= tau_min:
        return min(level + 1, LEVELS)
    return max(level - 1, 0) if record["accuracy"] > tau_max else level


def _remember(rollouts: Sequence[Rollout], state: State) -> State:
    records = dict(state["prompts"])
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.prompt.id, []).append(rollout)
    for key, members in groups.items():
        meta = members[0].request.meta
        records[key] = {
            "level": int(meta.get("hint_level", 0)),
            "accuracy": sum(r.reward > 0 for r in members) / len(members),
            "hints": dict(meta.get("hints") or records.get(key, {}).get("hints", {})),
        }
    return {"prompts": records}


@declare(columns=("solution",))
@hooks(init=lambda: {"prompts": {}}, on_rollouts=_remember)
def hint_schedule(
    requests: Sequence[Request],
    sampler: Sampler,
    state: State,
    *,
    solution: str = "solution",
    tau_min: float = 0.1,
    tau_max: float = 0.35,
) -> list[Rollout]:
    """Draw every group once, with a hint of the level that its prompt's last visit calls for."""
    records, prompts = state["prompts"], {r.prompt.id: r.prompt for r in requests}
    levels = {key: next_level(records.get(key), tau_min=tau_min, tau_max=tau_max) for key in prompts}
    fresh = write_hints({key: p for key, p in prompts.items() if levels[key]}, sampler, solution)
    hinted = []
    for request in requests:
        key = request.prompt.id
        hints = fresh.get(key) or records.get(key, {}).get("hints", {})
        hint = hints.get(str(levels[key]))
        asked = with_hint(request, hint, levels[key], sampler) if hint else request
        hinted.append(replace(asked, meta={**asked.meta, "hints": hints}))
    return sampler.draw(hinted)


@recipe(
    title="Self-Hinting Language Models Enhance Reinforcement Learning",
    paper="arXiv:2602.03143",
    idea="the policy writes itself hints for prompts it cannot solve",
    confidence="exact",
)
def sage(
    *,
    variant: Annotated[str, ("search", "light")] = "search",
    solution: str = "solution",
    tau_min: Annotated[float, "[0, 1]"] = 0.1,
    tau_max: Annotated[float, "[0, 1]"] = 0.35,
) -> Method:
    if variant == "search":
        return Method(guidance=use(hint_search, solution=solution))
    return Method(guidance=use(hint_schedule, solution=solution, tau_min=tau_min, tau_max=tau_max))
