"""FATE: On-Policy Self-Evolution via Failure Trajectories for Agentic Safety Alignment. arXiv:2605.11882.

Confidence: reconstructed: every formula (acceptance, ranks to scores, how the losses are mixed), the numbers of steps. Known:
repairs by the same policy, filtering, supervised warm-up, then a Pareto-aware optimisation.

A rollout has objectives u in [0, 1]^K, the run's rewards of these names, and is valid or not (`valid`: a reward above 0; else
that it ended and that its calls of tools are sound). It has failed where it is not valid, or some u_k is below its floor:

    collect    each failure is repaired `candidates` times by the policy, shown the task, the failure and what was wrong; a
               repair is accepted if it is valid, reaches all floors and dominates the failure.  Nothing is trained
    warm-up    L = mean over accepted repairs of the token mean of -logp, behind the ORIGINAL prompt
    pareto     GRPO on s_i = 1 - rank_i / rank_max, rank: the front that i stands in among the valid rollouts of its group
               (0: no other dominates it), invalid ones behind the last;  + sft_coef L

in rounds. A front is never pushed below what it dominates, whatever balance of the objectives it stands for. Repairs are drawn
in the environment, where there is one. Without an accepted repair the warm-up's steps are of the last kind.

Defaults: floors 0.5, 4 candidates, one update of warm-up, sft_coef 0 (specification); a round of 1 + 1 + 18 steps is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.curriculum import in_epochs
from cohort.axes.guidance import without_guidance
from cohort.axes.repair import is_valid, repaired
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.reductions.pareto import pareto_ranks, pareto_scores
from cohort.signals.components import component
from cohort.signals.phases import Plan, phase_at
from cohort.types import Batch, Rollout, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs
from cohort.types.replay import Replay, beside, joined, pack


def _start(size: int) -> State:
    return {"order": torch.empty(0, dtype=torch.int64), "position": 0, "epoch": 0, "size": size, "repairs": []}


def _accept(batch: Batch, state: State, rollouts: Sequence[Rollout], info: StepInfo, *, plan: Plan) -> State:
    """The accepted repairs of the round, each behind the original prompt."""
    now = phase_at(info.step, plan)
    if now.name != "collect" or not any(rollouts):
        return state
    rows = (batch["accepted"] > 0).nonzero()[:, 0]
    plainly = [without_guidance(rollouts[row]) for row in rows.tolist()]
    new = [pack(batch.select(rows), plainly)] if plainly else []
    return {**state, "repairs": [*(state["repairs"] if now.place else []), *new]}


def _taught(state: State, info: StepInfo, *, plan: Plan, sft_coef: float) -> Replay | None:
    weight = {"collect": 0.0, "warm-up": 1.0, "pareto": sft_coef}[phase_at(info.step, plan).name]
    if not state["repairs"] or not weight:
        return None
    replay = joined(state["repairs"])
    return beside(replay, taught=torch.full(replay.batch.mask.shape, weight))


@needs("accepted")
@hooks(init=_start, on_rollouts=_accept, replay=_taught)
def in_phases(state: State, *, count: int, rng: torch.Generator, info: StepInfo, plan: Plan) -> tuple[Tensor, State]:
    """Every prompt once an epoch; none in the warm-up, where there is something to learn from."""
    if phase_at(info.step, plan).name == "warm-up" and state["repairs"]:
        return torch.empty(0, dtype=torch.int64), state
    return in_epochs(state, torch.arange(state["size"]), count=count, rng=rng)


def not_collecting(batch: Batch, *, plan: Plan, info: StepInfo) -> Tensor:
    """What is drawn to collect repairs is not trained on: [N] bool."""
    return torch.full_like(batch.group, phase_at(info.step, plan).name != "collect", dtype=torch.bool)


def judge_validity(batch: Batch, access: ModelAccess, *, valid: str | None) -> Batch:
    """on_scored hook: the batch with `valid` [N], 0 or 1."""
    found = torch.tensor([float(is_valid(rollout, valid)) for rollout in access.rollouts], device=batch.device)
    return batch.with_rollouts(valid=found.to(batch.dtype))


@needs("valid", "reward_components")
@hooks(on_scored=judge_validity)
@declare(group_size=2, components=("objectives", "valid"), provides=("valid",))
def pareto_reward(batch: Batch, *, objectives: tuple[str, ...], valid: str | None = None, info: StepInfo) -> Tensor:
    """s_i = 1 - rank_i / rank_max: [N]; in place of the run's rewards. Source: arXiv:2605.11882."""
    held = torch.stack([component(batch, name, info) for name in objectives], 1)
    return pareto_scores(pareto_ranks(held, batch["valid"] > 0, batch.groups), batch.groups).to(batch.dtype)


@declare(couples=True, auxiliary=True)
def repair_likelihood(batch: Batch) -> Tensor:
    """weight times the mean over accepted repairs of the token mean of -logp, 0 without any: scalar."""
    if "taught" not in batch:
        return 0 * batch.logp.sum()
    weight = batch["taught"].amax(1)
    return (weight * token_mean(-batch.logp, batch.mask)).sum() / (weight > 0).sum().clamp(min=1)


@recipe(
    title="On-Policy Self-Evolution via Failure Trajectories for Agentic Safety Alignment",
    paper="arXiv:2605.11882",
    idea="the policy repairs its own failures and learns the repairs, then several objectives by their Pareto fronts",
    confidence="reconstructed: every formula and the numbers of steps",
)
def fate(
    *,
    objectives: tuple[str, ...] = ("security", "utility", "refusal"),
    valid: str | None = None,
    floors: tuple[float, ...] = (0.5,),
    candidates: Annotated[int, "[1, inf)"] = 4,
    collect_steps: Annotated[int, "[0, inf)"] = 1,
    warmup_steps: Annotated[int, "[0, inf)"] = 1,
    pareto_steps: Annotated[int, "[1, inf)"] = 18,
    sft_coef: Annotated[float, "[0, inf)"] = 0.0,
) -> Method:
    if not objectives or len(floors) not in (1, len(objectives)):
        raise MethodError("'fate': give objectives, names of rewards, and one floor for all of them or one for each")
    plan = (("collect", collect_steps), ("warm-up", warmup_steps), ("pareto", pareto_steps))
    scored = {"objectives": objectives, "valid": valid}
    return Method(
        curriculum=use(in_phases, plan=plan, sft_coef=sft_coef),
        guidance=use(repaired, plan=plan, **scored, floors=floors, candidates=candidates),
        shaping=(use(pareto_reward, **scored),),
        filter=(use(not_collecting, plan=plan),),
        regularizer=(use(repair_likelihood),),
    )
