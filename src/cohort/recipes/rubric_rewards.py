"""Rubric rewards: Reward Hacking in Rubric-Based Reinforcement Learning. arXiv:2605.12474.

Confidence: exact (a step without new credit says nothing, and the earliest of equal gaps is kept: inferred).

A verifier says g_k in {0, 1} for every criterion, of weight w_k, below 0 for what is not to be; GRPO is unchanged:

    R = ( sum_{w>0} w_k g_k + sum_{w<0} |w_k| (1 - g_k) ) / sum_k |w_k|          the reward judge:rubric

A policy raises R by exploiting the verifier, and by what the rubric does not say. Two measures of that, in the metrics:

    exploitation = sum w N J / sum w N over w > 0        N newly credited since the prompt was met last, J rejected by all of a
                                                         panel (rubric/exploitation; rubric/proxy and rubric/reference are R by
                                                         the verifier, and by what all of the panel credit)
    gap = mean_o l(o | x) - l(o | x, rubric)             o ~ pi(. | x, rubric), l the mean token log-probability; no judge is
                                                         needed. It is 0 or below; the checkpoint of the largest is to be kept

`verifier` and `panel` name rewards of the run, as in

    --reward verifier=judge:rubric@MODEL --reward 0*one=judge:rubric@OTHER --reward 0*two=judge:rubric@THIRD
    'rubric-rewards(verifier="verifier",panel=("one","two"))'

and are read of the first rollout of every prompt. Without a panel the gap alone is measured: every `gap_every` steps, with
`gap_samples` answers to each prompt of the step that are drawn behind its rubric and not trained on. 0 leaves it out.

Defaults: gap_every 25 and gap_samples 10 are the paper's (there on 300 held-out prompts); no panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from cohort.axes.guidance import by_prompt, with_guidance
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.seeds import derive
from cohort.signals.exploitation import BEHIND, measure_gaps, measured, unmeasured
from cohort.signals.rubrics import rubric_of
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks, needs

WITH_RUBRIC = "An answer is judged by these criteria:\n{text}\n\n{question}"


@declare(columns=("rubric",))
def drawn_behind_rubric(
    requests: Sequence[Request], sampler: Sampler, *, rubric: str, gap_every: int, gap_samples: int
) -> list[Rollout]:
    """The rollouts of the plain prompts; every `gap_every` steps each prompt's first one carries answers behind its rubric."""
    rollouts = sampler.draw(requests)
    if sampler.step % gap_every:
        return rollouts
    asked: dict[str, list[Request]] = {}
    for key, own in by_prompt(requests).items():
        criteria = rubric_of(own[0].prompt.row.get(rubric), own[0].prompt.where, signed=True)
        text = "\n".join(f"- {each.text}" if each.weight > 0 else f"- not: {each.text}" for each in criteria)
        shown = with_guidance(own[0], WITH_RUBRIC, text, sampler)
        asked[key] = [replace(shown, seed=derive(shown.seed, BEHIND, k)) for k in range(gap_samples)]
    drawn = iter(sampler.generate([request for each in asked.values() for request in each]))
    found = {
        key: [(o.request.context.tokens, o.tokens) for o in (next(drawn) for _ in each)] for key, each in asked.items()
    }
    out = []
    for rollout in rollouts:
        behind = found.pop(rollout.prompt.id, None)
        carried = (
            {}
            if behind is None
            else {"request": replace(rollout.request, meta={**rollout.request.meta, BEHIND: behind})}
        )
        out.append(rollout.replace(**carried))
    return out


@needs("rubric_gap", "rubric_gaps")
@hooks(init=unmeasured, on_scored=measure_gaps, on_rollouts=measured)
@declare(columns=("rubric",), components=("verifier", "panel"), provides=("rubric_gap", "rubric_gaps"))
def watched(
    batch: Batch, *, state: State, rubric: str = "rubric", verifier: str = "rubric", panel: tuple[str, ...] = ()
) -> tuple[Batch, dict[str, float]]:
    """The batch as it is, with the measures for the log. Source: arXiv:2605.12474."""
    names = ("gap", "gap_best", "gap_best_step") + (("proxy", "reference") if panel else ())
    found = {f"rubric/{name}": float(state[name]) for name in names}
    return batch, found | ({"rubric/exploitation": state["rate"]} if panel else {})


@recipe(
    title="Reward Hacking in Rubric-Based Reinforcement Learning",
    paper="arXiv:2605.12474",
    idea="rubrics as rewards, with measures of how far the policy exploits verifier and rubric",
    confidence="exact",
    rewards=("judge:rubric@policy",),
)
def rubric_rewards(
    *,
    rubric: str = "rubric",
    verifier: str = "rubric",
    panel: tuple[str, ...] = (),
    gap_every: Annotated[int, "[0, inf)"] = 25,
    gap_samples: Annotated[int, "[1, inf)"] = 10,
) -> Method:
    watch = use(watched, rubric=rubric, verifier=verifier, panel=tuple(panel))
    if not gap_every:
        return Method(shaping=(watch,))
    drawn = use(drawn_behind_rubric, rubric=rubric, gap_every=gap_every, gap_samples=gap_samples)
    return Method(guidance=drawn, shaping=(watch,))
