"""PPO: Proximal Policy Optimization Algorithms, and PPO-max (Secrets of RLHF in Large Language Models Part I: PPO).

arXiv:1707.06347 and arXiv:2307.04964 (code OpenLMLab/MOSS-RLHF). Confidence: reconstructed: which tricks the paper counts
as PPO-max, and its KL weight; PPO, GAE, the clipped value loss and the running reward statistics are exact.

    q_it = -beta (old_logp - ref_logp) + [t last] r_i
    d_t  = q_t + gamma V_old,t+1 - V_old,t      A'_t = d_t + gamma lam A'_t+1      G_t = A'_t + V_old,t
    A    = (A' - mean) / sqrt(var + 1e-8)       over all tokens of the batch, sample variance
    loss = token mean of -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)
           + token mean of (value_coef / 2) max( (V - G)^2, (clip(V, V_old -+ value_clip) - G)^2 )

One rollout a prompt suffices (group_size 1). The value function, 0 everywhere at first, is a model of its own
(critic="model") or a layer on the policy's hidden states (critic="head").

PPO-max, trick by trick: reward_norm="scaled" (released scripts) or "centred", and reward_clip; the KL in the reward
(kl_beta); critic_warmup, steps in which the values alone learn; value_clip; few epochs, and the run's grad_clip;
whiten="minibatch" with whiten_eps 1e-6, whiten_ddof 0 and adv_clip as in the released code. Its mixture with pretraining
data is not here. dual_clip stops a negative advantage from pushing a ratio that is beyond it.

Defaults: gamma 1, lam 0.95, clip and value clip 0.2, beta 0.01 (released script; the paper's 0.05 is not confirmed).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, regularizer, shaping, surrogate
from cohort.axes import critic as critics
from cohort.methods import Method, MethodError, Stage, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, needs


@needs("old_values", old_logp=lambda beta: beta > 0, ref_logp=lambda beta: beta > 0)
def whitened_gae(
    batch: Batch, *, beta: float, gamma: float, lam: float, eps: float, ddof: int, clip: float | None, whiten: bool
) -> Batch:
    """GAE of the token rewards, whitened over the batch: `advantages` and `returns` [N, T]. Source: arXiv:1707.06347."""
    values = batch["old_values"]
    raw = critics.gae(critics.token_rewards(batch, beta=beta), values, batch.mask, gamma=gamma, lam=lam)
    white = critics.whiten(raw, batch.mask, eps=eps, ddof=ddof, clip=clip) if whiten else raw
    return batch.with_tokens(returns=raw + values).replace(advantages=white)


def held_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    low: float,
    high: float,
    dual: float | None,
    warmup: int,
    info: StepInfo,
) -> Tensor:
    """The (dual-)clipped loss [N, T]; 0 in the first `warmup` steps. Source: arXiv:2307.04964."""
    if info.step < warmup:
        return torch.zeros_like(advantages)  # apart from logp: no gradient rather than 0, so that no momentum moves it
    if dual is None:
        return surrogate.clipped(ratio, advantages, low, high)
    return surrogate.dual_clipped(ratio, advantages, low, high, dual)


@declare(couples=True)
def whitened_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    eps: float,
    ddof: int,
    clip: float | None,
    low: float,
    high: float,
    dual: float | None,
    warmup: int,
    info: StepInfo,
) -> Tensor:
    """`held_clip` with advantages whitened over the minibatch: [N, T]. Source: arXiv:2307.04964."""
    white = critics.whiten(advantages, batch.mask, eps=eps, ddof=ddof, clip=clip)
    return held_clip(batch, ratio, white, low=low, high=high, dual=dual, warmup=warmup, info=info)


@recipe(
    title="Proximal Policy Optimization Algorithms",
    paper="arXiv:1707.06347, arXiv:2307.04964",
    idea="a learned value function is the baseline at every token; clipped ratios",
    confidence="reconstructed: which tricks the paper counts as PPO-max, and its KL weight",
)
def ppo(
    *,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    lam: Annotated[float, "[0, 1]"] = 0.95,
    kl_beta: Annotated[float, "[0, inf)"] = 0.01,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    dual_clip: Annotated[float | None, "(1, inf)"] = None,
    value_clip: Annotated[float | None, "(0, inf)"] = 0.2,
    value_coef: Annotated[float, "(0, inf)"] = 1.0,
    critic: Annotated[str, ("model", "head")] = "model",
    critic_lr: Annotated[float | None, "(0, inf)"] = None,
    critic_warmup: Annotated[int, "[0, inf)"] = 0,
    whiten: Annotated[str, ("batch", "minibatch", "none")] = "batch",
    whiten_eps: Annotated[float, "(0, inf)"] = 1e-8,
    whiten_ddof: Annotated[int, (0, 1)] = 1,
    adv_clip: Annotated[float | None, "(0, inf)"] = None,
    entropy_coef: Annotated[float, "[0, inf)"] = 0.0,
    reward_norm: Annotated[str, ("none", "centred", "scaled")] = "none",
    reward_clip: Annotated[float | None, "(0, inf)"] = None,
    reward_eps: Annotated[float, "(0, inf)"] = 1e-8,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    if critic_warmup and critic == "head":
        raise MethodError("'ppo': critic_warmup needs critic='model', since a head trains the policy's weights as well")
    white = {"eps": whiten_eps, "ddof": whiten_ddof, "clip": adv_clip}
    trust = {"low": clip_low, "high": clip_high, "dual": dual_clip, "warmup": critic_warmup}
    plain = use(surrogate.ppo_clip, low=clip_low, high=clip_high)
    held: Stage = use(whitened_clip, **white, **trust) if whiten == "minibatch" else use(held_clip, **trust)
    norm = {"center": reward_norm == "centred", "clip": reward_clip, "eps": reward_eps, "ddof": std_ddof}
    value = {"coef": value_coef, "value_clip": value_clip, "critic": critic, "critic_lr": critic_lr}
    return Method(
        shaping=() if reward_norm == "none" else (use(shaping.running_scale, **norm),),
        advantage=use(whitened_gae, beta=kl_beta, gamma=gamma, lam=lam, whiten=whiten == "batch", **white),
        surrogate=held if whiten == "minibatch" or dual_clip or critic_warmup else plain,
        critic=use(critics.value_loss, **value),
        regularizer=(use(regularizer.entropy_bonus, coef=entropy_coef),) if entropy_coef else (),
        aggregation=use(aggregation.token_mean),
    )
