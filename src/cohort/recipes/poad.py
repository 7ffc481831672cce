"""POAD: Reinforcing Language Agents via Policy Optimization with Action Decomposition. arXiv:2405.15821.

Code morning9393/ADRL. Confidence: exact.

An action of an agent is an unbroken run of its tokens; what an environment wrote (mask 0) stands between two actions.
Within an action nothing is discounted, so that a long action costs no more than a short one:

    d_sj = V(o_s, w_<=j) - V(o_s, w_<j)                  A_sj = d_sj + lam A_s,j+1                inside
    d_sn = R_s + gamma V(o_s+1) - V(o_s, w_<n)           A_sn = d_sn + gamma lam A_s+1,1          at its last token
    loss = token mean of -min(rho A, clip(rho) A) - entropy_coef H, with A normalised over the minibatch
           + token mean of (value_coef / 2) max( (V - G)^2, (clip(V, V_old -+ value_clip) - G)^2 )

V and A beyond the last action of an episode are 0. Mean and standard deviation (population) of the normalisation leave
out advantages of exactly 0, as the code does. Where the mean of rho - 1 - log rho over a minibatch is above max_kl, the
minibatch trains the values alone.

rewards="outcome" gives the rollout's reward to its last action and ends the episode there. rewards="turn" reads the
fields `turn_rewards` [N, T], what each action earned, at its last token, and `next_value` [N], the value of the state
after the rollout, 0 where the episode ended; an environment that rewards every action has to provide them.

Defaults: gamma 0.95, lam 0.95, clips 0.2, entropy 0.01, max_kl 0.02 (paper; Overcooked has gamma 0.99, entropy 1e-4).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, regularizer
from cohort.axes import critic as critics
from cohort.axes.surrogate import clipped
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.kl import k3
from cohort.types import Batch
from cohort.types.declare import declare, needs


def action_ends(mask: Tensor) -> Tensor:
    """[N, T] bool: the last token of every unbroken run of tokens with mask 1."""
    return mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))


def _by_turn(rewards: str) -> bool:
    return rewards == "turn"


@needs("old_values", turn_rewards=_by_turn, next_value=_by_turn)
def decomposed(batch: Batch, *, gamma: float = 0.95, lam: float = 0.95, rewards: str = "outcome") -> Batch:
    """GAE that discounts between actions only: `advantages` and `returns` [N, T]. Source: arXiv:2405.15821."""
    values, mask, turns = batch["old_values"], batch.mask, rewards == "turn"
    earned = batch["turn_rewards"] if turns else critics.token_rewards(batch)
    step = torch.where(action_ends(mask), gamma, 1.0).to(values.dtype)
    raw = critics.gae(earned, values, mask, gamma=step, lam=lam, end=batch["next_value"] if turns else None)
    return batch.with_tokens(returns=raw + values).replace(advantages=raw)


def normalised(advantages: Tensor, mask: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-8) [N, T] by the advantages that are not exactly 0; 0 at masked positions."""
    some = advantages[mask & (advantages != 0)]
    if some.numel() < 2 or bool(some.max() == some.min()):
        return torch.zeros_like(advantages)
    scaled = (advantages - some.mean()) / (some.std(correction=0) + 1e-8)
    return torch.where(mask, scaled, torch.zeros_like(scaled))


def movement(batch: Batch) -> Tensor:
    """Mean of rho - 1 - log rho over the tokens of the minibatch: scalar, without gradient."""
    return k3(batch.old_logp, batch.logp.detach())[batch.mask].sum() / batch.mask.sum().clamp(min=1)


def _held(loss: Tensor, batch: Batch, max_kl: float | None) -> Tensor:
    """The token losses, cut off from the policy where it moved too far."""
    return loss.detach() if max_kl is not None and bool(movement(batch) > max_kl) else loss


@needs("old_logp")
@declare(couples=True)
def stopping_clip(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float, high: float, max_kl: float | None, normalise: bool
) -> Tensor:
    """The clipped loss [N, T] of advantages normalised over the minibatch. Source: arXiv:2405.15821."""
    advantages = normalised(advantages, batch.mask) if normalise else advantages
    return _held(clipped(ratio, advantages, low, high), batch, max_kl)


@needs("old_logp", "entropy")
@declare(couples=True)
def stopping_entropy(batch: Batch, *, coef: float, max_kl: float | None) -> Tensor:
    """-coef H_it [N, T], which stops with the policy loss. Source: arXiv:2405.15821."""
    return _held(regularizer.entropy_bonus(batch, coef=coef), batch, max_kl)


@recipe(
    title="Reinforcing Language Agents via Policy Optimization with Action Decomposition",
    paper="arXiv:2405.15821",
    idea="a token-level value function that discounts between an agent's actions, never within one",
    confidence="exact",
)
def poad(
    *,
    gamma: Annotated[float, "[0, 1]"] = 0.95,
    lam: Annotated[float, "[0, 1]"] = 0.95,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    entropy_coef: Annotated[float, "[0, inf)"] = 0.01,
    value_clip: Annotated[float | None, "(0, inf)"] = 0.2,
    value_coef: Annotated[float, "(0, inf)"] = 1.0,
    max_kl: Annotated[float | None, "(0, inf)"] = 0.02,
    rewards: Annotated[str, ("outcome", "turn")] = "outcome",
    normalise_advantages: Annotated[bool, (True, False)] = True,
    critic: Annotated[str, ("model", "head")] = "model",
    critic_lr: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    value = {"coef": value_coef, "value_clip": value_clip, "critic": critic, "critic_lr": critic_lr}
    clip = {"low": clip_low, "high": clip_high, "max_kl": max_kl, "normalise": normalise_advantages}
    bonus = (use(stopping_entropy, coef=entropy_coef, max_kl=max_kl),) if entropy_coef else ()
    return Method(
        advantage=use(decomposed, gamma=gamma, lam=lam, rewards=rewards),
        surrogate=use(stopping_clip, **clip),
        critic=use(critics.value_loss, **value),
        regularizer=bonus,
        aggregation=use(aggregation.token_mean),
    )
