"""Rewards with constraints, KL weights and lengths that controllers steer from step to step. Source: arXiv:2511.22169."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cohort.reductions.groups import group_order, token_mean
from cohort.reductions.kl import k3
from cohort.signals.components import component
from cohort.signals.controller import Gains, averaged, controlled
from cohort.signals.forecast import horizon
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import ModelAccess, Sampler
from cohort.types.declare import State, declare, hooks, needs


def epoch_of(step: int, epoch_steps: int | None) -> int:
    """The epoch of a step, of `epoch_steps` steps each; None is a single one."""
    return step // epoch_steps if epoch_steps else 0


def begins(step: int, epoch_steps: int | None) -> bool:
    """An epoch begins with the step."""
    return step == 0 or (epoch_steps is not None and step % epoch_steps == 0)


# rewards with constraints --------------------------------------------------------------------------------------------


def _lambdas(lambda_init: float) -> State:
    sums = {"I_rec": 0.0, "I_far": 0.0, "recall": None, "far": None}
    return {"lambda_rec": lambda_init, "lambda_far": lambda_init, **sums}


def steer_lambdas(
    state: State, recall: float | None, far: float | None, *, floor: float, target: float, gains: Gains, most: float
) -> State:
    """The state with both weights moved: up while recall lies below its floor, or the false-alarm rate above its target."""
    new = dict(state)
    for name, key, value in (("recall", "rec", recall), ("far", "far", far)):
        if value is not None:
            new[name] = averaged(state[name], value, gains.alpha)
            error = floor - new[name] if key == "rec" else new[name] - target
            before = (state[f"lambda_{key}"], state[f"I_{key}"])
            new[f"lambda_{key}"], new[f"I_{key}"] = controlled(*before, error, gains=gains, low=0.0, high=most)
    return new


def _after_update(
    batch: Batch,
    state: State,
    info: StepInfo,
    *,
    recall: str | None,
    far: str | None,
    recall_floor: float,
    far_target: float,
    gains: Gains,
    lambda_max: float,
) -> State:
    first = group_order(torch.zeros_like(batch.groups.index), batch.groups)[1] == 0
    seen = [None if name is None else float(component(batch, name, info)[first].mean()) for name in (recall, far)]
    return steer_lambdas(state, *seen, floor=recall_floor, target=far_target, gains=gains, most=lambda_max)


@hooks(init=_lambdas, on_step_end=_after_update)
@declare(components=("recall", "far"))
def constrained(
    batch: Batch,
    state: State,
    *,
    recall: str | None = None,
    far: str | None = None,
    recall_floor: float = 0.6,
    far_target: float = 0.18,
    info: StepInfo,
) -> Tensor:
    """R = r + lambda_rec (recall - floor) - lambda_far max(0, far - target): [N]."""
    rewards = batch.rewards
    if recall is not None:
        rewards = rewards + state["lambda_rec"] * (component(batch, recall, info) - recall_floor)
    if far is not None:
        rewards = rewards - state["lambda_far"] * (component(batch, far, info) - far_target).clamp(min=0)
    return rewards


# rank and moving average ---------------------------------------------------------------------------------------------


def _fresh() -> State:
    return {"mean": 0.0, "var": 1e-6}


def moved(batch: Batch, state: State, info: StepInfo, *, ema_alpha: float, epoch_steps: int | None) -> State:
    """mean and var after a step: of the mean of its rewards."""
    state = _fresh() if begins(info.step, epoch_steps) and epoch_steps else state
    value = float(batch.rewards.mean())
    mean = (1 - ema_alpha) * state["mean"] + ema_alpha * value
    return {"mean": mean, "var": (1 - ema_alpha) * state["var"] + ema_alpha * (value - mean) ** 2}


@hooks(init=_fresh, on_step_end=moved)
def rank_and_average(
    batch: Batch,
    state: State,
    *,
    coef: float = 0.1,
    ema_alpha: float = 0.05,
    epoch_steps: int | None = None,
    info: StepInfo,
) -> Tensor:
    """(1 - c) 2 (k / max(1, G - 1) - 1/2) + c (R - m) / (s + 1e-6), k the rank in the group, ties by index: [N]."""
    groups, rewards = batch.groups, batch.rewards
    rank = group_order(rewards, groups)[1].to(batch.dtype)
    place = 2 * (rank / (groups.size[groups.index] - 1).clamp(min=1) - 0.5)
    now = moved(batch, state, info, ema_alpha=ema_alpha, epoch_steps=epoch_steps)
    mean, std = float(now["mean"]), float(now["var"]) ** 0.5
    found: Tensor = (1 - coef) * place + coef * (rewards - mean) / (std + 1e-6)
    return found


# a controlled KL term ------------------------------------------------------------------------------------------------


def _beta(beta: float) -> State:
    return {"beta": beta, "I": 0.0, "kl": None}


def measure_kl(batch: Batch, access: ModelAccess) -> Batch:
    """Passes of policy and reference. An on_scored hook: the batch with `step_kl` [N], the k3 estimate, mean over tokens."""
    given = ([r.context for r in access.rollouts], [r.tokens for r in access.rollouts])
    support = [r.support for r in access.rollouts]
    own, ref = (access.log_probs(*given, role=role, support=support)["logp"] for role in ("policy", "reference"))
    width = own.shape[1]
    found = token_mean(k3(own, ref), batch.mask[:, :width].to(own.device))
    return batch.with_rollouts(step_kl=found.to(batch.rewards))


def steer_beta(state: State, kl: float, *, target_kl: float, gains: Gains, beta_min: float, beta_max: float) -> State:
    """The state with the weight moved: up while the divergence lies above its target."""
    average = averaged(state["kl"], kl, gains.alpha)
    how = {"gains": gains, "low": beta_min, "high": beta_max}
    beta, total = controlled(state["beta"], state["I"], average - target_kl, **how)  # type: ignore[arg-type]
    return {"beta": beta, "I": total, "kl": average}


def _before_update(
    batch: Batch,
    state: State,
    info: StepInfo,
    *,
    target_kl: float | None,
    gains: Gains,
    beta_min: float,
    beta_max: float,
    epoch_steps: int | None,
) -> State:
    if target_kl is None:
        return state
    state = {**state, "kl": None} if begins(info.step, epoch_steps) else state
    how = {"gains": gains, "beta_min": beta_min, "beta_max": beta_max}
    return steer_beta(state, float(batch["step_kl"].mean()), target_kl=target_kl, **how)  # type: ignore[arg-type]


@needs("ref_logp", "step_kl")
@hooks(init=_beta, on_scored=measure_kl, on_rollouts=_before_update)
@declare(provides=("step_kl",))
def controlled_kl(batch: Batch, state: State) -> Tensor:
    """beta KL: [N, T]; the policy's own where the batch has it as `kl`, else the k3 estimate."""
    estimate = batch["kl"] if "kl" in batch else k3(batch.logp, batch.ref_logp)
    beta: float = state["beta"]
    return beta * estimate


# lengths that grow ---------------------------------------------------------------------------------------------------


def within_horizon(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    unit: int | None = None,
    base: int = 3,
    increment: int = 1,
    every: int = 1,
    t_max: int = 12,
    epoch_steps: int | None = None,
) -> list[Rollout]:
    """The requests with at most unit min(t_max, base + floor(epoch / every) increment) tokens each; all without `unit`."""
    if unit is None:
        return sampler.draw(requests)
    epoch = epoch_of(sampler.step, epoch_steps)
    most = unit * horizon(epoch, base=base, increment=increment, every=every, most=t_max)
    return sampler.draw([replace(each, max_new_tokens=min(each.max_new_tokens, most)) for each in requests])
