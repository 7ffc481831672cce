"""Multi-turn: A Practitioner's Guide to Multi-turn Agentic Reinforcement Learning. arXiv:2510.01132.

Code pearls-lab/meow-tea-taro. Confidence: exact.

    single   q_it = [t last token of the last turn] r_i                    dense   q_it = [t last token of turn k] e_k / c_i
    c_i = number of turns with e_k > 0 if the episode was won, else what can be earned at most; at least 1
    q_it <- q_it - beta (old_logp_it - ref_logp_it)
    gae      d_t = q_t + gamma V_old,t' - V_old,t      A_t = d_t + gamma lam A_t'      then whitened over the batch
    rloo     A_i = G_i - mean of G over the others of the group, G_i = sum_t q_it
    grpo     A_i = (G_i - mean_g G) / (std_g G + eps)
    loss = token mean of -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)

t' is the next token of the policy's own: what the environment says takes no step. e_k is the reward of turn k (`Step.reward`),
and dense adds no final reward. An episode that ran out of tokens did not end its last turn, and has no single reward. A group
of one keeps G_i itself. rewards="turn" takes e_k as it is. Dense rewards of episodes that were lost are divided by the column
`max_reward` of the data, where one is named.

Defaults: gamma 1, lam 1, beta 0.01, clip 0.2, std_ddof 1 (released scripts; beta 0.001 with dense rewards and rloo).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.axes import critic as critics
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_mean, group_size, group_std, token_sum
from cohort.reductions.kl import k1
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def single(batch: Batch) -> Tensor:
    """[N, T] the rollout's reward at its last token; 0 where it ran out of tokens. Source: arXiv:2510.01132."""
    return critics.token_rewards(batch) * (1 - batch["truncated"][:, None].to(batch.dtype))


def dense(batch: Batch) -> Tensor:
    """[N, T] rewards of the turns as shares of what there was to earn. Source: arXiv:2510.01132."""
    return batch["turn_rewards"] / batch["parts"][:, None].to(batch.dtype)


def count_parts(batch: Batch, access: ModelAccess, *, rewards: str, max_reward: str | None) -> Batch:
    """The batch with `parts` [N], the c_i of dense rewards. Source: arXiv:2510.01132."""
    if rewards != "dense":
        return batch
    most = [1.0] * batch.size if max_reward is None else [float(value) for value in access.column(max_reward)]
    parts = [
        sum((turn.reward or 0.0) > 0 for turn in rollout.turns) if rollout.accuracy >= 1 else at_most
        for rollout, at_most in zip(access.rollouts, most, strict=True)
    ]
    return batch.with_rollouts(parts=torch.tensor(parts, device=batch.device, dtype=batch.dtype).clamp(min=1))


def _of_turns(rewards: str) -> bool:
    return rewards != "single"


def _dense(rewards: str) -> bool:
    return rewards == "dense"


def _penalised(beta: float) -> bool:
    return beta > 0


@needs("truncated", old_logp=_penalised, ref_logp=_penalised, turn_rewards=_of_turns, parts=_dense)
@declare(columns=("max_reward",), provides=("parts",))
@hooks(on_scored=count_parts)
def placed(batch: Batch, *, rewards: str, beta: float, max_reward: str | None = None) -> Batch:
    """The rewards along the tokens, KL penalty included, as `token_rewards` [N, T]; `rewards` [N] becomes their sum."""
    along = single(batch) if rewards == "single" else dense(batch) if rewards == "dense" else batch["turn_rewards"]
    along = along - beta * k1(batch.old_logp, batch.ref_logp) if beta else along
    return batch.with_tokens(token_rewards=along).replace(rewards=token_sum(along, batch.mask))


@needs("old_values")
def turn_gae(batch: Batch, *, gamma: float, lam: float) -> Batch:
    """GAE over the policy's own tokens, whitened: `advantages` and `returns` [N, T]. Source: arXiv:2510.01132."""
    values = batch["old_values"]
    raw = critics.gae(batch["token_rewards"], values, batch.mask, gamma=gamma, lam=lam)
    return batch.with_tokens(returns=raw + values).replace(advantages=critics.whiten(raw, batch.mask, eps=1e-8, ddof=1))


def compared(batch: Batch, *, estimator: str, eps: float, ddof: int) -> Tensor:
    """[N] the episode's return against its group's; in a group of one the return itself. Source: arXiv:2510.01132."""
    total, groups = batch.rewards, batch.groups
    size = group_size(groups, total.dtype)[groups.index]
    apart = total - group_mean(total, groups)[groups.index]
    apart = torch.where(group_flat(total, groups)[groups.index], torch.zeros_like(total), apart)
    if estimator == "rloo":
        return torch.where(size > 1, apart * size / (size - 1).clamp(min=1), total)
    std = group_std(total, groups, ddof)[groups.index]
    return torch.where(size > 1, apart / (std + eps), total / (1 + eps))


@recipe(
    title="A Practitioner's Guide to Multi-turn Agentic Reinforcement Learning",
    paper="arXiv:2510.01132",
    idea="an environment's rewards stand at the ends of turns, and credit jumps over what it says",
    confidence="exact",
)
def multi_turn(
    *,
    estimator: Annotated[str, ("gae", "rloo", "grpo")] = "gae",
    rewards: Annotated[str, ("single", "dense", "turn")] = "single",
    max_reward: str | None = None,
    kl_in_reward: Annotated[float, "[0, inf)"] = 0.01,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    lam: Annotated[float, "[0, 1]"] = 1.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
    value_clip: Annotated[float | None, "(0, inf)"] = 0.2,
    value_coef: Annotated[float, "(0, inf)"] = 1.0,
    critic: Annotated[str, ("model", "head")] = "model",
    critic_lr: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    value = {"coef": value_coef, "value_clip": value_clip, "critic": critic, "critic_lr": critic_lr}
    learned = estimator == "gae"
    groups = use(compared, estimator=estimator, eps=adv_eps, ddof=std_ddof)
    return Method(
        shaping=(use(placed, rewards=rewards, beta=kl_in_reward, max_reward=max_reward),),
        advantage=use(turn_gae, gamma=gamma, lam=lam) if learned else groups,
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        critic=use(critics.value_loss, **value) if learned else None,
        aggregation=use(aggregation.token_mean),
    )
