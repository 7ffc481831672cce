"""Shaping axis: rewards -> rewards. A function returns the shaped rewards [N], or a batch that holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.groups import token_sum
from cohort.reductions.kl import k1
from cohort.signals.components import component
from cohort.types import Batch, StepInfo, generation_budget
from cohort.types.declare import State, declare, hooks, needs


@needs("old_logp", "ref_logp")
def kl_in_reward(batch: Batch, *, beta: float) -> Tensor:
    """R_i = r_i - beta sum_t (old_logp_it - ref_logp_it), the k1 estimate of the whole rollout, without gradient.

    Returns:
        [N].

    Source: arXiv:2402.14740.
    """
    return batch.rewards - beta * token_sum(k1(batch.old_logp, batch.ref_logp), batch.mask)


@declare(components=("names",))
def named_sum(batch: Batch, *, names: tuple[str, ...], weights: tuple[float, ...], info: StepInfo) -> Tensor:
    """r_i = sum_k w_k r_ik over the rewards of these names, in place of the run's sum: [N]. One that does not apply counts 0.

    Source: arXiv:2503.21819.
    """
    parts = [weight * component(batch, name, info) for name, weight in zip(names, weights, strict=True)]
    return torch.stack(parts).sum(0)


def overlong_penalty(lengths: Tensor, max_len: float, cache_len: float) -> Tensor:
    """0 up to max_len - cache_len, then falling linearly to -1 at max_len, and -1 beyond; [N] for lengths [N]."""
    falling = ((max_len - cache_len) - lengths) / cache_len
    return torch.where(lengths > max_len, -torch.ones_like(lengths), falling.clamp(max=0.0))


def soft_overlong(batch: Batch, *, max_len: int | None = None, cache_len: int | None = None, info: StepInfo) -> Tensor:
    """Rewards plus the soft overlong punishment.

    Args:
        max_len: hard limit in tokens; None takes the generation budget of the run.
        cache_len: width of the fall in tokens; None takes a fifth of max_len, the paper's share.

    Returns:
        [N].

    Source: arXiv:2503.14476 eq. 13.
    """
    limit = max_len or generation_budget(info)
    return batch.rewards + overlong_penalty(batch.lengths, limit, cache_len or max(1, limit // 5))


def _no_scores() -> State:
    return {"count": 0, "mean": 0.0, "square": 0.0}


def _seen(batch: Batch, state: State) -> State:
    """Merge the step's scores into count, mean and sum of squared distances from the mean."""
    scores = batch.rewards.to("cpu", torch.float64)
    if not scores.numel():
        return state
    number, mean = scores.numel(), float(scores.mean())
    total, apart = state["count"] + number, mean - state["mean"]
    square = state["square"] + float(((scores - mean) ** 2).sum()) + apart**2 * state["count"] * number / total
    return {"count": total, "mean": state["mean"] + apart * number / total, "square": square}


def running_std(state: State, *, ddof: int = 1) -> float:
    """Standard deviation of all scores so far; 0 for fewer than ddof + 1 of them."""
    return (state["square"] / (state["count"] - ddof)) ** 0.5 if state["count"] > ddof else 0.0


@hooks(init=_no_scores, on_rollouts=_seen)
def running_scale(
    batch: Batch, state: State, *, center: bool = True, clip: float | None = None, eps: float = 1e-8, ddof: int = 1
) -> Tensor:
    """clip( (r_i - mean) / (std + eps), -clip, clip ), mean and std over all scores of the run so far, these included.

    Args:
        center: False only divides by the standard deviation.
        clip: None does not clip.
        ddof: 0 population, 1 sample standard deviation.

    Returns:
        [N]; 0 while all scores were equal, or the rewards as they are if they are not centred.

    Source: arXiv:2307.04964.
    """
    std, rewards = running_std(state, ddof=ddof), batch.rewards
    # Equal scores leave a spread of rounding, and nothing to divide by.
    if std > 1e-12 * max(1.0, abs(state["mean"])):
        rewards = (rewards - (state["mean"] if center else 0.0)) / (std + eps)
    elif center and state["count"]:
        rewards = torch.zeros_like(rewards)
    return rewards if clip is None else rewards.clamp(-clip, clip)


def trapezoid(lengths: Tensor, corners: Tensor) -> Tensor:
    """[N] 0 up to l_min and from l_max on, 1 from l_a to l_b, straight in between, for lengths [N].

    Args:
        corners: [N, 4] l_min <= l_a <= l_b <= l_max of each rollout; equal ones make a step.
    """
    l_min, l_a, l_b, l_max = corners.unbind(1)
    rise = (lengths - l_min) / (l_a - l_min).clamp(min=1e-9)
    return torch.minimum(rise, (l_max - lengths) / (l_max - l_b).clamp(min=1e-9)).clamp(0, 1)
