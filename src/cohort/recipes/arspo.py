"""ARSPO: Adaptive Reward Scaling Policy Optimization (OmniVL-Guard: Towards Unified Vision-Language Forgery Detection and
Grounding via Balanced RL). arXiv:2602.10687.

Confidence: reconstructed: the controller's thresholds and factors, the laggard's condition, windows, the soft gate's
temperatures. Known: the objective, the reward maps and a, the controller's four rules in order, bounds, rescaling.

    r_i  = x_i (classification) or exp(a x_i) (localisation), x in [0, 1] the reward that was given
    A_i  = (r_i - mean_g r) / std_g r,   multiplied by the weight l_k of its task
    loss = seq. mean of -(4 / tau) sigmoid(tau (rho - 1)) l A        gate="soft";   gate="clip": PPO's

Weights start at 1. The first `warmup_steps` steps record the mean B_k of x per task; afterwards, every `window_steps`
steps with means mu_k, the first of these rules that holds changes l_k, then all are divided by the smallest:

    momentum  mu_k - mu_past > eta_up         keep            rescue   mu_k - mu_past < -eta_down    min(l_max, boost l_k)
    decay     mu_k >= theta_high              max(1, decay l_k)    laggard  smallest (mu_k - B_k) / B_k   as rescue

The data column `task` holds the number of a row's task, from 0, or its name in `tasks`; `maps` has a map for each. A task
that a window did not see keeps mean and weight. Weights multiply advantages, so that they leave aggregation and KL alone.

Defaults: a 3, one classification and three localisation tasks (paper); the controller's numbers are the specification's,
and the lengths of warm-up and window are ours.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes import surrogate
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.tasks import task_numbers
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks, needs

RULES = ("momentum", "rescue", "decay", "laggard", "none")


@needs("task")
@hooks(on_scored=task_numbers)
@declare(columns=("column",), provides=("task",))
def task_map(batch: Batch, *, maps: tuple[str, ...], a: float = 3.0) -> Tensor:
    """Rewards through the map of their task, x or exp(a x) with x cut to [0, 1]: [N]. Source: arXiv:2602.10687."""
    exponential = torch.tensor([name == "exp" for name in maps], device=batch.device)
    return torch.where(exponential[batch["task"]], (a * batch.rewards.clamp(0, 1)).exp(), batch.rewards)


def control(
    weights: Tensor,
    baseline: Tensor,
    past: Tensor,
    mean: Tensor,
    *,
    eta_up: float,
    eta_down: float,
    theta_high: float,
    boost: float,
    decay: float,
    l_max: float,
) -> tuple[Tensor, Tensor, list[str]]:
    """New weights [K], gains [K] and the rule that held for each task; a mean that is not a number keeps the past one."""
    seen, mean = ~mean.isnan(), torch.where(mean.isnan(), past, mean)
    gain, change = (mean - baseline) / baseline.clamp(min=1e-6), mean - past
    lags = torch.arange(len(mean)) == gain.nan_to_num(torch.inf).argmin()
    holds = torch.stack([change > eta_up, change < -eta_down, mean >= theta_high, lags, torch.ones_like(lags)])
    rule = torch.where(seen, holds.int().argmax(0), len(RULES) - 1)
    up, down = (boost * weights).clamp(max=l_max), (decay * weights).clamp(min=1)
    new = torch.stack([weights, up, down, up, weights])[rule, torch.arange(len(mean))]
    return new / new.min(), gain, [RULES[i] for i in rule.tolist()]


def _start(maps: tuple[str, ...]) -> State:
    zeros = torch.zeros(len(maps), dtype=torch.float64)
    unknown = {"baseline": zeros + torch.nan, "past": zeros + torch.nan}
    return {"weights": zeros + 1, **unknown, "sum": zeros, "count": zeros, "steps": 0, "warm": False}


def _watch(batch: Batch, state: State, *, warmup_steps: int, window_steps: int, rules: dict[str, float]) -> State:
    task, x = batch["task"].cpu(), batch.rewards.to("cpu", torch.float64)
    total, count = state["sum"].index_add(0, task, x), state["count"].index_add(0, task, torch.ones_like(x))
    state = {**state, "sum": total, "count": count, "steps": state["steps"] + 1}
    if state["steps"] < (window_steps if state["warm"] else warmup_steps):
        return state
    mean = total / count  # not a number for a task that was not seen
    baseline, past = (torch.where(state[k].isnan(), mean, state[k]) for k in ("baseline", "past"))
    if state["warm"]:
        state["weights"], _, _ = control(state["weights"], baseline, past, mean, **rules)
    past, zeros = torch.where(mean.isnan(), past, mean), torch.zeros_like(total)
    return {**state, "baseline": baseline, "past": past, "sum": zeros, "count": zeros, "steps": 0, "warm": True}


@needs("task")
@hooks(init=_start, on_rollouts=_watch, on_scored=task_numbers)
@declare(columns=("column",), provides=("task",))
def task_weight(batch: Batch, advantages: Tensor, state: State) -> Tensor:
    """l_k A_it: [N, T]. Source: arXiv:2602.10687."""
    weights: Tensor = state["weights"].to(batch.device, advantages.dtype)
    return advantages * weights[batch["task"]][:, None]


@recipe(
    title="OmniVL-Guard: Towards Unified Vision-Language Forgery Detection and Grounding via Balanced RL",
    paper="arXiv:2602.10687",
    idea="steeper rewards and larger weights for the tasks that stand still",
    confidence="reconstructed: the controller's numbers and laggard, windows, the soft gate's temperatures",
)
def arspo(
    *,
    column: str = "task",
    tasks: tuple[Any, ...] | None = None,
    maps: tuple[str, ...] = ("identity", "exp", "exp", "exp"),
    a: Annotated[float, "(0, inf)"] = 3.0,
    gate: Annotated[str, ("soft", "clip")] = "soft",
    tau_pos: Annotated[float, "(0, inf)"] = 1.0,
    tau_neg: Annotated[float, "(0, inf)"] = 1.05,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    warmup_steps: Annotated[int, "[1, inf)"] = 20,
    window_steps: Annotated[int, "[1, inf)"] = 20,
    eta_up: Annotated[float, "[0, inf)"] = 0.01,
    eta_down: Annotated[float, "[0, inf)"] = 0.01,
    theta_high: Annotated[float, "(-inf, inf)"] = 0.9,
    boost: Annotated[float, "[1, inf)"] = 1.2,
    decay: Annotated[float, "(0, 1]"] = 0.9,
    l_max: Annotated[float, "[1, inf)"] = 4.0,
) -> Method:
    tasks = tuple(range(len(maps))) if tasks is None else tasks
    if len(tasks) != len(maps) or not set(maps) <= {"identity", "exp"}:
        raise MethodError("'arspo': maps says 'identity' or 'exp' for each of the tasks")
    rules = {"eta_up": eta_up, "eta_down": eta_down, "theta_high": theta_high, "boost": boost, "decay": decay}
    watch = {"warmup_steps": warmup_steps, "window_steps": window_steps, "rules": {**rules, "l_max": l_max}}
    soft, clip = {"tau_pos": tau_pos, "tau_neg": tau_neg}, {"low": clip_low, "high": clip_high}
    named = {"column": column, "tasks": tasks, "maps": maps}
    return Method(
        shaping=(use(task_map, a=a, **named),),
        credit=(use(task_weight, **named, **watch),),
        surrogate=use(surrogate.soft_gate, **soft) if gate == "soft" else use(surrogate.ppo_clip, **clip),
    )
