"""T-PPO: Truncated Proximal Policy Optimization. arXiv:2506.15050.

Confidence: reconstructed: which tokens train policy and values, lambda and window, the value loss. Known: generation
limited to a window with a rolling batch, V(s_l) = V(s_l-1) for unfinished rollouts, separate tokens for the two losses.

Every slot of the batch generates at most `window` tokens a step; a rollout that ended makes room for the next prompt, the
others go on in the next step (`rollouts/windows.py`) and are part of a checkpoint. With V_t the value before token t and l
tokens so far:

    d_t   = r_t + gamma V_t+1 - V_t,   r_l-1 = R if finished, V_l = 0 if finished and V_l-1 if not
    A_t   = d_t + gamma lam A_t+1
    loss  = mean of -min(rho A, clip(rho) A)        over the tokens of this window
            + value_coef mean of (V_t - gamma^(l-1-t) R)^2 / 2      over all tokens of rollouts that ended in this step

A rollout cut at its largest length counts as finished. Slots are prompts_per_step x group_size; a prompt begins where there is
room for all its rollouts, which are not compared.

Defaults: window a quarter of max_new_tokens (ours); gamma 1, lam 0.95, clip 0.2 are the specification's; the paper's values
were not recorded.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, sampling, surrogate
from cohort.axes import critic as critics
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_sum
from cohort.types import Batch
from cohort.types.declare import declare, hooks, needs


@needs("old_values", "finished", "window_start")
def extended_gae(batch: Batch, *, gamma: float = 1.0, lam: float = 0.95) -> Batch:
    """A of every token so far, and `loss_mask` on those of the window: [N, T]. Source: arXiv:2506.15050."""
    values, mask, finished = batch["old_values"], batch.mask, batch["finished"].bool()
    last = token_sum(values, critics.last_valid(mask))
    rewards = torch.where(finished[:, None], critics.token_rewards(batch), torch.zeros_like(values))
    end = torch.where(finished, torch.zeros_like(last), last)
    advantages = critics.gae(rewards, values, mask, gamma=gamma, lam=lam, end=end)
    new = torch.arange(mask.shape[1], device=mask.device) >= batch["window_start"][:, None]
    return batch.replace(advantages=advantages, loss_mask=batch.loss_mask & new)


def value_targets(batch: Batch, *, gamma: float = 1.0) -> Batch:
    """The batch with `value_mask`, all tokens of finished rollouts, and there `value_target` gamma^(l-1-t) R: [N, T]."""
    mask = batch.mask & batch["finished"].bool()[:, None]
    after = mask.flip(1).cumsum(1).flip(1) - 1
    target = batch.rewards[:, None] * gamma ** after.clamp(min=0).to(batch.dtype)
    return batch.with_tokens(value_mask=mask, value_target=torch.where(mask, target, torch.zeros_like(target)))


@needs("finished")
@hooks(on_advantages=value_targets)
@declare(couples=True)
def finished_value_loss(
    batch: Batch, *, coef: float = 1.0, critic: str = "model", critic_lr: float | None = None
) -> Tensor:
    """coef mean of (V - target)^2 / 2 over the tokens of `value_mask`: scalar. Source: arXiv:2506.15050."""
    mask, error = batch["value_mask"], (batch["values"] - batch["value_target"]) ** 2
    return 0.5 * coef * token_sum(error, mask).sum() / mask.sum().clamp(min=1)


@recipe(
    title="Truncated Proximal Policy Optimization",
    paper="arXiv:2506.15050",
    idea="train on what a fixed window generated; unfinished rollouts go on in the next step",
    confidence="reconstructed: which tokens train policy and values, lambda, the value loss",
)
def t_ppo(
    *,
    window: Annotated[int | None, "[1, inf)"] = None,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    gae_lambda: Annotated[float, "[0, 1]"] = 0.95,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    value_coef: Annotated[float, "(0, inf)"] = 1.0,
    critic: Annotated[str, ("model", "head")] = "model",
    critic_lr: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    value = {"coef": value_coef, "critic": critic, "critic_lr": critic_lr, "gamma": gamma}
    return Method(
        sampling=use(sampling.windowed, window=window),
        advantage=use(extended_gae, gamma=gamma, lam=gae_lambda),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        critic=use(finished_value_loss, **value),
        aggregation=use(aggregation.token_mean),
    )
