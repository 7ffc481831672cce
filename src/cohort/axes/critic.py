"""Critic axis: what learns values, and how; with rewards along the tokens, and advantages from them and the values.

A function of it takes a minibatch and gives the loss that trains the values, token losses [N, T] or a scalar. There are,
since the axis is filled, the fields `values` [N, T], with gradient, and for every axis after the rewards `old_values`
[N, T], as they were before the step's updates. A value belongs to the state before its token. A function that declares
`target_values` [N, T] is given those of a copy that moves slowly after the value function.

Its hyperparameters say what the values come from, where it has them:

    critic        "model": a model of its own; "head": a layer on the policy's hidden states, which then feel the loss too
    critic_lr     learning rate of the value function; None takes the run's
    target_decay  share of itself that the slow copy keeps when it moves
    target_every  updates after which it moves
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.reductions.kl import k1
from cohort.reductions.scan import discounted_sum
from cohort.types import Batch
from cohort.types.declare import hooks


def last_valid(mask: Tensor) -> Tensor:
    """[N, T] bool: the last token with mask 1 of each rollout."""
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    return mask & (place == place.amax(1, keepdim=True))


def token_rewards(batch: Batch, *, beta: float = 0.0) -> Tensor:
    """q_it = -beta (old_logp_it - ref_logp_it) + [t last] r_i: [N, T], 0 at masked positions."""
    rewards = torch.where(last_valid(batch.mask), batch.rewards[:, None], torch.zeros((), dtype=batch.dtype))
    return rewards - beta * k1(batch.old_logp, batch.ref_logp) if beta else rewards


def next_values(values: Tensor, mask: Tensor, end: Tensor | None = None) -> Tensor:
    """[N, T] the value at the next token with mask 1, `end` [N] (or 0) at the last one; 0 at masked positions."""
    count = mask.sum(1)
    some, last = count > 0, count.cumsum(0) - 1
    # Row by row the tokens with mask 1 stand one after the other.
    ahead = values[mask].roll(-1)
    ahead[last[some]] = 0.0 if end is None else end.to(values.dtype)[some]
    return torch.zeros_like(values).masked_scatter(mask, ahead)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float | Tensor, lam: float, end: Tensor | None = None
) -> Tensor:
    """A_t = delta_t + gamma_t lam A_t', delta_t = q_t + gamma_t V_t' - V_t, where t' is the next token with mask 1.

    Tokens that an environment wrote have no value of their own and take no step of discount.

    Args:
        rewards, values: [N, T], 0 at masked positions.
        gamma: discount after each token, a number or [N, T].
        lam: how far ahead the rewards themselves are trusted rather than the values, in [0, 1].
        end: [N], the value after the last token, of a rollout that was not at its end; None for 0.

    Returns:
        [N, T], 0 at masked positions.

    Source: arXiv:1506.02438.
    """
    delta = rewards + gamma * next_values(values, mask, end) - values
    decay = torch.where(mask, torch.as_tensor(gamma * lam, dtype=values.dtype, device=values.device), 1.0)
    return torch.where(mask, discounted_sum(delta, decay), 0.0)


def whiten(values: Tensor, mask: Tensor, *, eps: float, ddof: int, clip: float | None = None) -> Tensor:
    """(x - mean) / sqrt(var + eps) over all tokens with mask 1, cut to [-clip, clip].

    Args:
        ddof: 0 population, 1 sample variance.

    Returns:
        [N, T]; 0 at masked positions, and everywhere if all values are equal.
    """
    valid = values[mask]
    if valid.numel() <= ddof or torch.equal(*valid.aminmax()):
        return torch.zeros_like(values)
    scaled = (values - valid.mean()) / (valid.var(correction=ddof) + eps).sqrt()
    scaled = scaled if clip is None else scaled.clamp(-clip, clip)
    return torch.where(mask, scaled, torch.zeros_like(scaled))


def with_returns(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95) -> Batch:
    """The batch with the field `returns` [N, T], what the values are trained towards, where the advantage left none."""
    if "returns" in batch:
        return batch
    values = batch["old_values"]
    return batch.with_tokens(returns=values + gae(token_rewards(batch), values, batch.mask, gamma=gamma, lam=lam))


@hooks(on_advantages=with_returns)
def value_loss(
    batch: Batch,
    *,
    coef: float = 1.0,
    value_clip: float | None = 0.2,
    critic: str = "model",
    critic_lr: float | None = None,
) -> Tensor:
    """coef / 2 max( (V - G)^2, (clip(V, V_old - c, V_old + c) - G)^2 ), differentiated through V.

    Args:
        coef: weight in the loss.
        value_clip: c, how far the value may move before the larger of the two errors holds it; None does not clip.
        critic, critic_lr: what the values come from, and how fast that learns (see above).

    Returns:
        [N, T].

    Source: arXiv:1707.06347 (clipping: its public implementation).
    """
    values, old, goal = batch["values"], batch["old_values"], batch["returns"]
    error = (values - goal) ** 2
    if value_clip is not None:
        held = old + (values - old).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (held - goal) ** 2)
    return 0.5 * coef * error
