"""ActiveVLN: Towards Active Exploration via Multi-Turn RL in Vision-and-Language Navigation. arXiv:2509.12618.

Code arvillion/ActiveVLN. Confidence: exact.

    R_i  = base (1 - min(d_i / radius, 1)) if rollout i stopped at a distance d_i <= radius, else 0
    A_i  = (R_i - mean_g R) / (std_g R + 1e-6)
    loss = token mean of -min(rho A_i, clip(rho, 1 - 0.2, 1 + 0.28) A_i)

A group without a single success (accuracy) is sampled again as a whole, up to `attempts` times; the newest one stands.
`stopped` and `distance` name the components by which an environment says how an episode ended, as the GridWorld of
`cohort.environments.navigation` does; without them the run's reward is taken as it is. What ends an episode, budgets of steps
and of turns, is the environment's.

`warmup_steps` W > 0 begins episodes on an expert's path: at step s <= W its first n - n_drop actions have been made already,
n_drop = int(m + (n - m) rho), rho = (log max(s, 1) / log(W + 1))^alpha, m = min(2, n), n from the column `expert_steps`. The
environment finds `replayed`, `step_budget` and `turn_budget` in its row.

Defaults: base 15, radius 3 (m), 2 attempts, clip 0.2 and 0.28, no KL, no warm-up; tolerance 2, 120 steps, 40 turns (released).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage, aggregation, surrogate
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.seeds import derive
from cohort.signals.components import component
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs


def goal_reward(stopped: Tensor, distance: Tensor, *, base: float, radius: float) -> Tensor:
    """[N] base (1 - min(d / radius, 1)) where stopped within the radius, else 0. Source: arXiv:2509.12618."""
    near = base * (1 - (distance / radius).clamp(max=1))
    return torch.where((stopped > 0) & (distance <= radius), near, torch.zeros_like(near))


@needs("reward_components")
@declare(components=("stopped", "distance"))
def at_goal(batch: Batch, *, stopped: str, distance: str, base: float, radius: float, info: StepInfo) -> Tensor:
    """`goal_reward` of the run's components. Source: arXiv:2509.12618."""
    parts = (component(batch, name, info).to(batch.dtype) for name in (stopped, distance))
    return goal_reward(*parts, base=base, radius=radius)


def schedule(
    n: int, step: int, *, warmup: int, alpha: float, tolerance: float, steps: int, turns: int
) -> dict[str, int]:
    """What of an expert's path of n actions is replayed at a step, and what budgets are left. Source: released code."""
    least, dropped = min(2, n), n
    if warmup and step <= warmup:
        rho = (math.log(max(step, 1)) / math.log(warmup + 1)) ** alpha
        dropped = int(least + (n - least) * rho)
    replayed = n - dropped
    left = turns - math.ceil(replayed / 3)
    return {"replayed": replayed, "step_budget": int(min(tolerance * dropped, steps)), "turn_budget": left}


@declare(columns=("expert_steps",))
def drawn_again(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    attempts: int,
    expert_steps: str | None,
    warmup: int,
    alpha: float,
    tolerance: float,
    steps: int,
    turns: int,
) -> list[Rollout]:
    """Rollouts; groups in which all failed once more, up to `attempts` times. Source: arXiv:2509.12618."""
    if warmup and expert_steps is not None:
        plan = partial(schedule, warmup=warmup, alpha=alpha, tolerance=tolerance, steps=steps, turns=turns)
        rows = [{**r.prompt.row, **plan(int(r.prompt.row[expert_steps]), sampler.step)} for r in requests]
        requests = [replace(r, prompt=replace(r.prompt, row=row)) for r, row in zip(requests, rows, strict=True)]
    rollouts = sampler.draw(requests)
    for attempt in range(1, attempts + 1):
        solved = {rollout.prompt.id for rollout in rollouts if rollout.accuracy >= 1}
        again = [replace(r, seed=derive(r.seed, "again", attempt)) for r in requests if r.prompt.id not in solved]
        if not again:
            break
        rollouts = [rollout for rollout in rollouts if rollout.prompt.id in solved] + sampler.draw(again)
    return rollouts


@recipe(
    title="ActiveVLN: Towards Active Exploration via Multi-Turn RL in Vision-and-Language Navigation",
    paper="arXiv:2509.12618",
    idea="free walks to a goal, rewarded at a stop alone; groups without a success are sampled again",
    confidence="exact",
)
def activevln(
    *,
    base: Annotated[float, "(0, inf)"] = 15.0,
    radius: Annotated[float, "(0, inf)"] = 3.0,
    stopped: str | None = None,
    distance: str | None = None,
    attempts: Annotated[int, "[0, inf)"] = 2,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
    warmup_steps: Annotated[int, "[0, inf)"] = 0,
    alpha: Annotated[float, "(0, inf)"] = 2.0,
    expert_steps: str | None = None,
    tolerance: Annotated[float, "(0, inf)"] = 2.0,
    max_steps: Annotated[int, "[1, inf)"] = 120,
    max_turns: Annotated[int, "[1, inf)"] = 40,
) -> Method:
    if (stopped is None) != (distance is None):
        raise MethodError("'activevln': name both components, stopped and distance, or neither")
    if warmup_steps and expert_steps is None:
        raise MethodError(
            "'activevln': warmup_steps needs expert_steps, the column with the length of the expert's path"
        )
    goal = {"stopped": stopped, "distance": distance, "base": base, "radius": radius}
    warm = {"warmup": warmup_steps, "alpha": alpha, "tolerance": tolerance, "steps": max_steps, "turns": max_turns}
    return Method(
        guidance=use(drawn_again, attempts=attempts, expert_steps=expert_steps if warmup_steps else None, **warm),
        shaping=(use(at_goal, **goal),) if stopped is not None else (),
        advantage=use(advantage.zscore, eps=adv_eps, ddof=std_ddof),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.token_mean),
    )
