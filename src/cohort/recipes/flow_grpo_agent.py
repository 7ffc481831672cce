"""Flow-GRPO (AgentFlow): In-the-Flow Agentic System Optimization for Effective Planning and Tool Use. arXiv:2510.05592.

Code lupantech/AgentFlow. Confidence: reconstructed: the nesting of the means in the paper's loss, and whether its statistics
are over trajectories. Not to be confused with flow-grpo, which is about flow matching.

    A_i  = (R_i - mean_g R) / (std_g R + eps)                                the outcome of a trajectory, at all of its turns
    loss = (1/N) sum_i (1/T_i) sum_t (1/|a_it|) sum_j [ -min(rho A_i, clip(rho, 1 - low, 1 + high) A_i) + beta k3_itj ]

A planner acts T_i times; each time its context is rebuilt of the question and a memory, as an environment does with
`Observation(..., fresh=True)`. What executes, verifies and answers is the environment's, and never trained on.

As released: statistics="row" counts a trajectory in mean and (sample) deviation once for each of its turns, and
aggregation="token" takes the mean over all tokens. Turns in contexts of more than `max_prompt_length` tokens count in the
statistics, and not in the loss. What its trainer discards so that minibatches are full is kept here.

Defaults: clip 0.2 and 0.3, beta 0.001 (released launch).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation as aggregations
from cohort.axes import regularizer, surrogate
from cohort.axes.advantage import zscore
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_sum
from cohort.reductions.turns import turn_sizes
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

AGGREGATIONS = {"trajectory-turn-token": aggregations.turn_mean, "token": aggregations.token_mean}


@needs("turn")
@declare(group_size=2)
def turn_zscore(batch: Batch, *, eps: float, ddof: int) -> Tensor:
    """[N] as `zscore`, each rollout counted once for each of its turns; of a single turn the reward itself.

    Source: released code of arXiv:2510.05592.
    """
    rewards, groups, index = batch.rewards, batch.groups, batch.groups.index
    turns = turn_sizes(batch["turn"], batch.mask)[1].to(rewards.dtype)
    count = group_sum(turns, groups)[index]
    mean = group_sum(turns * rewards, groups)[index] / count.clamp(min=1)
    square = group_sum(turns * (rewards - mean) ** 2, groups)[index]
    std = (square / (count - ddof).clamp(min=1)).sqrt()
    flat = group_flat(rewards, groups)[index] & (count > 1)
    scaled = torch.where(count > 1, (rewards - mean) / (std + eps), rewards / (1 + eps))
    return torch.where(flat, torch.zeros_like(scaled), scaled)


def context_lengths(batch: Batch, access: ModelAccess) -> Batch:
    """The batch with `prompt_length` [N, T], tokens that each turn was conditioned on. Source: arXiv:2510.05592."""
    lengths = torch.zeros(batch.mask.shape, dtype=torch.int64)
    for row, rollout in zip(lengths, access.rollouts, strict=True):
        for turn in rollout.turns:
            row[turn.start : turn.end] = len(rollout.before(turn.start))
    return batch.with_tokens(prompt_length=lengths.to(batch.device))


@needs("prompt_length")
@declare(provides=("prompt_length",))
@hooks(on_scored=context_lengths)
def short_prompts(batch: Batch, advantages: Tensor, *, most: int) -> Batch:
    """The batch with a loss over the turns whose context has at most that many tokens. Source: arXiv:2510.05592."""
    return batch.replace(loss_mask=batch.loss_mask & (batch["prompt_length"] <= most))


@recipe(
    title="In-the-Flow Agentic System Optimization for Effective Planning and Tool Use",
    paper="arXiv:2510.05592",
    idea="the outcome of a trajectory is credited to each of its turns, and turns weigh alike",
    confidence="reconstructed: the nesting of the means in the loss, statistics over trajectories",
)
def flow_grpo_agent(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.3,
    kl_beta: Annotated[float, "[0, inf)"] = 0.001,
    kl: Annotated[str, ("k1", "k2", "k3")] = "k3",
    statistics: Annotated[str, ("trajectory", "row")] = "trajectory",
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
    aggregation: Annotated[str, tuple(AGGREGATIONS)] = "trajectory-turn-token",
    max_prompt_length: Annotated[int | None, "[1, inf)"] = None,
) -> Method:
    estimate = zscore if statistics == "trajectory" else turn_zscore
    return Method(
        advantage=use(estimate, eps=adv_eps, ddof=std_ddof),
        credit=(use(short_prompts, most=max_prompt_length),) if max_prompt_length else (),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(use(regularizer.kl, beta=kl_beta, estimator=kl),) if kl_beta else (),
        aggregation=use(AGGREGATIONS[aggregation]),
    )
