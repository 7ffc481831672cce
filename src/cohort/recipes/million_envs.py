"""PPO with 1M environments: Preventing Learning Stagnation in PPO by Scaling to 1 Million Parallel Environments.

arXiv:2603.06009; the loss with a moving average of the policy is PPO-EWMA, arXiv:2110.00641, code openai/ppo-ewma.
Confidence: reconstructed: the paper was read in notes; loss and average are exact from the code of PPO-EWMA.

A step is one noisy step of an outer loop: its size is how far its updates move the policy, its noise falls with the number
of rollouts. Long runs stagnate where that step is too large for what it learns from. The cure is more rollouts a step
(prompts_per_step x group_size) at the same minibatch, learning rate and epochs, so that `updates` grows with them; scaling
the minibatch along undoes it. `divergence/ratio` measures it, and the doctor's `outer-step-large` reads it.

    W' = d W + 1, avg <- (d W avg + theta) / W'         after every update; W = 1, avg = theta at the start
    l  = logp - avg_logp       b = max(sampler_logp, sg[logp] - ln cap)
    pg = max( -A exp(logp - b), -A exp(clamp(l, ln(1 - c), ln(1 + c)) + avg_logp - b) )
    loss = token mean of pg - entropy_coef H + proximal_coef l^2 / 2 + value_coef (V - G)^2

A and G are GAE's; A is normalised within each minibatch (population standard deviation). The average costs a copy of the
weights and a pass at every minibatch. With avg = sampler the loss is PPO's, with d = 0 it never clips.

Defaults: c 0.2, d 0.889, cap 100 and value_coef 0.5 as in PPO-EWMA; gamma 1, lam 0.95 as for PPO on language models.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, regularizer
from cohort.axes import critic as critics
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import declare, needs


@needs("old_values")
def gae_of_rewards(batch: Batch, *, gamma: float, lam: float) -> Batch:
    """GAE of the token rewards: `advantages` and `returns` [N, T]. Source: arXiv:1506.02438."""
    values = batch["old_values"]
    raw = critics.gae(critics.token_rewards(batch), values, batch.mask, gamma=gamma, lam=lam)
    return batch.with_tokens(returns=raw + values).replace(advantages=raw)


def behaviour(batch: Batch, cap: float) -> Tensor:
    """b of every token [N, T], without gradient; the policy itself where nothing drew the token in this context."""
    logp, sampler = batch.logp.detach(), batch["sampler_logp"]
    return torch.maximum(torch.where(sampler.isnan(), logp, sampler), logp - math.log(cap))


@needs("sampler_logp")
def capped(batch: Batch, *, cap: float) -> Tensor:
    """exp(logp - b), at most `cap`: the ratio [N, T] to the policy that drew. Source: arXiv:2110.00641."""
    return (batch.logp - behaviour(batch, cap)).exp()


@needs("sampler_logp", "ema_logp")
@declare(teacher=True)
def decoupled_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    low: float,
    high: float,
    cap: float,
    teacher_decay: float,
    teacher_every: int = 1,
    teacher_unbiased: bool = True,
) -> Tensor:
    """max(-A rho, -A exp(clamp(l) + avg_logp - b)): [N, T], clipped around the average. Source: arXiv:2110.00641."""
    proximal = batch["ema_logp"].to(batch.dtype)
    held = (batch.logp - proximal).clamp(math.log1p(-low) if low < 1 else -math.inf, math.log1p(high))
    bounded = (held + proximal - behaviour(batch, cap)).exp()
    return torch.maximum(-advantages * ratio, -advantages * bounded)


@needs("sampler_logp", "ema_logp")
@declare(couples=True, teacher=True)
def normalised_decoupled_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    eps: float,
    low: float,
    high: float,
    cap: float,
    teacher_decay: float,
    teacher_every: int = 1,
    teacher_unbiased: bool = True,
) -> Tensor:
    """`decoupled_clip` with advantages normalised over the minibatch: [N, T]. Source: arXiv:2110.00641."""
    # eps stands beside the standard deviation, not under its root.
    white = critics.whiten(advantages, batch.mask, eps=eps**2, ddof=0)
    return decoupled_clip(batch, ratio, white, low=low, high=high, cap=cap, teacher_decay=teacher_decay)


@needs("ema_logp")
def proximal_penalty(batch: Batch, *, coef: float) -> Tensor:
    """coef l^2 / 2: [N, T], which holds the policy near its average. Source: arXiv:2110.00641."""
    return 0.5 * coef * (batch.logp - batch["ema_logp"].to(batch.dtype)) ** 2


@recipe(
    title="PPO with 1M environments: Preventing Learning Stagnation in PPO by Scaling to 1 Million Parallel Environments",
    paper="arXiv:2603.06009, arXiv:2110.00641",
    idea="more rollouts a step at the same minibatch, and ratios clipped around a moving average of the policy",
    confidence="reconstructed: the paper was read in notes; PPO-EWMA's loss and average are exact",
)
def million_envs(
    *,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    lam: Annotated[float, "[0, 1]"] = 0.95,
    decay: Annotated[float, "[0, 1)"] = 0.889,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    cap: Annotated[float, "[1, inf)"] = 100.0,
    proximal_coef: Annotated[float, "[0, inf)"] = 0.0,
    entropy_coef: Annotated[float, "[0, inf)"] = 0.0,
    value_coef: Annotated[float, "(0, inf)"] = 0.5,
    critic: Annotated[str, ("model", "head")] = "model",
    critic_lr: Annotated[float | None, "(0, inf)"] = None,
    whiten: Annotated[str, ("minibatch", "none")] = "minibatch",
    whiten_eps: Annotated[float, "(0, inf)"] = 1e-8,
) -> Method:
    held = {"low": clip_low, "high": clip_high, "cap": cap, "teacher_decay": decay}
    plain = use(decoupled_clip, **held)
    value = {"coef": 2 * value_coef, "critic": critic, "critic_lr": critic_lr}
    terms = [use(regularizer.entropy_bonus, coef=entropy_coef)] if entropy_coef else []
    terms += [use(proximal_penalty, coef=proximal_coef)] if proximal_coef else []
    return Method(
        advantage=use(gae_of_rewards, gamma=gamma, lam=lam),
        ratio=use(capped, cap=cap),
        surrogate=plain if whiten == "none" else use(normalised_decoupled_clip, eps=whiten_eps, **held),
        critic=use(critics.value_loss, value_clip=None, **value),
        regularizer=tuple(terms),
        aggregation=use(aggregation.token_mean),
    )
