"""RAE: role-conditioned advantage estimation (SPIRAL: Self-Play on Zero-Sum Games Incentivizes Reasoning via Multi-Agent
Multi-Turn Reinforcement Learning). arXiv:2506.24119, code spiral-rl/spiral; also prime-rl's "rae". Confidence: exact.

    A_i = R_i - b[game, role]        b[game, role] <- decay b[game, role] + (1 - decay) R_i        rollout by rollout

In self-play one policy plays all roles: each agent of an episode is a role, and its part a rollout (`Observation.agent`). The
mean of a zero-sum game is 0 whatever the policy does, and a first move's worth would be credited to it for ever; b follows it.
No group is compared, and no deviation divided by. `game` names a column of the data that tells several games apart. gamma < 1
weighs a turn by gamma^(turns to the end).

Defaults: decay 0.95, gamma 1, clip 0.2, no KL (the paper's, with 2 epochs over a batch of 128 games).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, regularizer, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_table
from cohort.reductions.scan import discounted_sum
from cohort.signals.votes import number_keys
from cohort.types import Batch, Groups
from cohort.types.access import ModelAccess
from cohort.types.batch import label_of
from cohort.types.declare import State, declare, hooks, needs


def follow(batch: Batch, before: dict[str, float], decay: float) -> tuple[Tensor, dict[str, float]]:
    """The baselines [N] that rollouts meet in the order of the batch, and those after them, by "game/agent".

    Source: arXiv:2506.24119.
    """
    keys = [f"{game}/{role}" for game, role in zip(batch["game"].tolist(), batch.agent.tolist(), strict=True)]
    index = number_keys(keys).to(batch.device)
    names = list(dict.fromkeys(keys))
    rows, there = group_table(Groups(index, torch.arange(len(names), device=batch.device)))
    rewards = batch.rewards.double()
    start = rewards.new_tensor([before.get(name, 0.0) for name in names])[:, None]
    steps = torch.cat([start, torch.where(there, (1 - decay) * rewards[rows], 0.0)], 1)
    decays = torch.cat([torch.ones_like(start), torch.where(there, decay, 1.0).to(rewards)], 1)
    # b_j = decay b_(j-1) + step_j is a discounted sum read backwards.
    path = discounted_sum(steps.flip(1), decays.flip(1)).flip(1)
    met = torch.zeros_like(rewards).index_put((rows[there],), path[:, :-1][there])
    return met, {**before, **dict(zip(names, path[:, -1].tolist(), strict=True))}


def with_baselines(batch: Batch, access: ModelAccess, state: State, *, decay: float, game: str | None) -> Batch:
    """The batch with `game` [N] and `role_baseline` [N]. Source: arXiv:2506.24119."""
    names = [""] * batch.size if game is None else [str(value) for value in access.column(game)]
    batch = batch.with_rollouts(game=torch.tensor([label_of(name) for name in names], device=batch.device))
    return batch.with_rollouts(role_baseline=follow(batch, state["baselines"], decay)[0].to(batch.dtype))


def _follow(batch: Batch, state: State, *, decay: float) -> State:
    return {"baselines": follow(batch, state["baselines"], decay)[1]}


@needs("role_baseline", "game")
@declare(provides=("role_baseline", "game"), columns=("game",))
@hooks(init=lambda: {"baselines": {}}, on_scored=with_baselines, on_rollouts=_follow)
def against_role(batch: Batch, *, decay: float, game: str | None = None) -> Tensor:
    """A_i = R_i - b[game, role]: [N]. Source: arXiv:2506.24119."""
    return batch.rewards - batch["role_baseline"]


@needs("turn")
def discounted_turns(batch: Batch, advantages: Tensor, *, gamma: float) -> Tensor:
    """[N, T] advantages times gamma^(turns to the end). Source: released code of arXiv:2506.24119."""
    turn = batch["turn"]
    return advantages * gamma ** (turn.amax(1, keepdim=True) - turn).to(advantages.dtype)


@recipe(
    title="SPIRAL: Self-Play on Zero-Sum Games Incentivizes Reasoning via Multi-Agent Multi-Turn Reinforcement Learning",
    paper="arXiv:2506.24119",
    idea="in self-play each role of each game has a moving average of its rewards as baseline",
    confidence="exact",
)
def rae(
    *,
    decay: Annotated[float, "[0, 1]"] = 0.95,
    game: str | None = None,
    gamma: Annotated[float, "[0, 1]"] = 1.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
    kl_beta: Annotated[float, "[0, inf)"] = 0.0,
    kl: Annotated[str, ("k1", "k2", "k3")] = "k3",
) -> Method:
    return Method(
        advantage=use(against_role, decay=decay, game=game),
        credit=(use(discounted_turns, gamma=gamma),) if gamma < 1 else (),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator=kl),) if kl_beta else (),
        aggregation=use(aggregation.token_mean),
    )
