"""A*-PO: Accelerating RL for LLM Reasoning with Optimal Advantage Regression. arXiv:2505.20686.

Code ZhaolinGao/A-PO. Confidence: exact; that stage 1 is the first steps of the run is ours.

The value of the optimal KL-regularised policy needs no group in every step: n answers of the reference give it, once:

    V*(x) = beta1 log( (1/n) sum_j exp(r_j / beta1) );      beta1 = 0: the mean
    loss  = (1/N) sum_i ( beta2 sum_t (logp - ref_logp) - (r_i - V*(x_i)) )^2             one rollout a prompt

Stage 1, the first steps, draws every prompt `samples` times and trains nothing, so that the policy is still the reference.
`scores` names a column with the rewards of its answers instead. Prompts without a success are left out; V* is 0 without reward.

Defaults: beta1 0.5, beta2 1e-3, n 8 (paper). The gradient is 2 beta2 times REINFORCE's, so the learning rate must fit it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes.curriculum import in_epochs
from cohort.axes.objective import sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs


def optimal_value(rewards: Tensor, beta1: float) -> Tensor:
    """V* of rewards [n]: scalar. Source: arXiv:2505.20686."""
    return beta1 * (torch.logsumexp(rewards / beta1, 0) - math.log(len(rewards))) if beta1 else rewards.mean()


def _start(size: int, rows: Sequence[Mapping[str, Any]], *, scores: str | None, beta1: float) -> State:
    """V*, NaN before stage 1; which prompts no answer solved; the step of their stage 1, -1 before it: each [size]."""
    value, hopeless = torch.full((size,), torch.nan, dtype=torch.float64), torch.zeros(size, dtype=torch.bool)
    for row, columns in enumerate(rows if scores else ()):
        known = torch.tensor([float(each) for each in columns.get(scores or "") or [0.0]], dtype=torch.float64)
        value[row], hopeless[row] = optimal_value(known, beta1), bool(known.sum() == 0)
    asked, order = torch.full((size,), -1), torch.empty(0, dtype=torch.int64)
    return {"value": value, "hopeless": hopeless, "asked": asked, "order": order, "position": 0, "epoch": 0}


def _settled(state: State, step: int) -> Tensor:
    """V* [size] as a step knows it: 0 where an earlier one asked, and no answer had a reward."""
    value: Tensor = state["value"]
    return value.masked_fill(value.isnan() & (state["asked"] >= 0) & (state["asked"] < step), 0.0)


def _measure(batch: Batch, state: State, *, beta1: float, info: StepInfo) -> State:
    """Stage 1 of the step's prompts, those that have no value yet."""
    value, hopeless = state["value"].clone(), state["hopeless"].clone()
    rows, rewards = batch["row"].cpu(), batch.rewards.cpu().double()
    for row in rows.unique().tolist():
        if bool(_settled(state, info.step)[row].isnan()):
            found = rewards[rows == row]
            value[row], hopeless[row] = optimal_value(found, beta1), bool(found.sum() == 0)
    return {**state, "value": value, "hopeless": hopeless}


def _known(batch: Batch, access: ModelAccess, state: State, info: StepInfo) -> Batch:
    """`optimal_value` [N] as it was before the step: NaN in stage 1."""
    return batch.with_rollouts(optimal_value=_settled(state, info.step)[batch["row"].cpu()].to(batch.rewards))


@declare(provides=("optimal_value",))
@hooks(init=_start, on_scored=_known, on_rollouts=_measure)
def two_stages(
    state: State,
    *,
    count: int,
    rng: torch.Generator,
    scores: str | None = None,
    beta1: float = 0.5,
    drop_hopeless: bool = True,
    info: StepInfo = StepInfo(),
) -> tuple[Tensor, State]:
    """Every row without a value once, then every row that is not hopeless once an epoch: rows [<= count]."""
    rows = (state["value"].isnan() & (state["asked"] < 0)).nonzero()[:count, 0]
    if len(rows):
        return rows, {**state, "asked": state["asked"].index_fill(0, rows, info.step)}
    hopeful = (~(state["hopeless"] & drop_hopeless & ~state["hopeless"].all())).nonzero()[:, 0]
    return in_epochs(state, hopeful, count=count, rng=rng)


@hooks(init=_start, on_rollouts=_measure)
def by_stage(
    rows: Tensor, state: State, *, group_size: int, samples: int = 8, scores: str | None = None, beta1: float = 0.5
) -> Tensor:
    """`samples` rollouts of a prompt in stage 1, one in stage 2: counts [n]."""
    return torch.where(state["value"][rows].isnan(), samples, 1)


@needs("optimal_value")
def second_stage(batch: Batch) -> Tensor:
    """Stage 1 trains nothing: [N] bool."""
    return ~batch["optimal_value"].isnan()


@needs("optimal_value")
def above_value(batch: Batch) -> Tensor:
    """r - V*, what the log-ratio is regressed on: [N]."""
    return batch.rewards - batch["optimal_value"]


@needs("ref_logp", "optimal_value")
def regression(batch: Batch, *, beta2: float = 1e-3) -> Tensor:
    """The mean squared error of beta2 log-ratio against r - V*, over what has a value: scalar. Source: arXiv:2505.20686."""
    apart = beta2 * sequence_log_ratio(batch) - above_value(batch)
    return torch.where(apart.isnan(), 0.0, apart).square().sum() / max(1, batch.size)


@recipe(
    title="Accelerating RL for LLM Reasoning with Optimal Advantage Regression",
    paper="arXiv:2505.20686",
    idea="the optimal value from the reference's answers, once; then one rollout a prompt",
    confidence="exact",
)
def a_star_po(
    *,
    beta1: Annotated[float, "[0, inf)"] = 0.5,
    beta2: Annotated[float, "(0, inf)"] = 1e-3,
    samples: Annotated[int, "[1, inf)"] = 8,
    scores: str | None = None,
    drop_hopeless: bool = True,
) -> Method:
    stage = {"scores": scores, "beta1": beta1}
    return Method(
        curriculum=use(two_stages, drop_hopeless=drop_hopeless, **stage),
        budget=use(by_stage, samples=samples, **stage),
        filter=(use(second_stage),),
        advantage=use(above_value),
        objective=use(regression, beta2=beta2),
    )
