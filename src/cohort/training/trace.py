"""What became of each rollout of a step, for the record and for the user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from cohort.methods import BoundMethod, Method, Prepared
from cohort.reductions.groups import group_sum
from cohort.types import Batch, Rollout

# How far a rollout came: it has no reward; its group has too few rollouts for the method; to the filters before the
# advantage; to those after it; into the update.
UNSCORED, TOO_FEW, REMOVED_BEFORE, REMOVED_AFTER, TRAINED = range(5)


def with_outcomes(method: BoundMethod, everything: Batch, made: Prepared, chosen: torch.Tensor) -> Batch:
    """The batch of all rollouts with what became of each, for the record: `stage` [N] (UNSCORED, ...),
    `shaped_reward` [N] and `base_advantage` [N, T], the advantage before credit; NaN where the rollout was left out before.

    Args:
        chosen: rows of `everything` that `made` was made of.
    """
    chosen = chosen.to(everything.device)
    stage = torch.full_like(everything["group"], UNSCORED)
    scored = (~everything.rewards.isnan()).nonzero()[:, 0]
    stage[scored] = TOO_FEW
    stage[scored[method.comparable(everything.select(scored))]] = REMOVED_BEFORE
    stage[chosen[made.filtered]] = TOO_FEW
    stage[chosen[made.before]] = REMOVED_AFTER
    stage[chosen[made.passed]] = TOO_FEW
    stage[chosen[made.trained]] = TRAINED
    reward = torch.full_like(everything.rewards, torch.nan)
    reward[chosen] = made.shaped.rewards.to(reward.dtype)
    base = made.assigned.get("base_advantages")
    given = made.assigned["outcome_advantage"][:, None].expand(made.assigned.mask.shape) if base is None else base
    advantage = everything.rewards.new_full(everything.mask.shape, torch.nan)
    # Rollouts without a reward may be longer than those that have one.
    advantage[chosen[made.before], : given.shape[1]] = given.to(advantage.dtype)
    return everything.with_rollouts(stage=stage, shaped_reward=reward).with_tokens(base_advantage=advantage)


def counts(everything: Batch, rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Metrics of what was left out because it has no reward, or nothing to be compared with."""
    failed = sum(rollout.failed for rollout in rollouts)
    too_small = 0.0
    if rollouts:
        stage, groups = everything["stage"], everything.groups
        few, rest = (group_sum(each.float(), groups) for each in (stage == TOO_FEW, stage > TOO_FEW))
        too_small = float(((few > 0) | (rest == 0)).sum())
    return {
        "rollouts/abstained": float(sum(not rollout.scored for rollout in rollouts) - failed),
        "rollouts/failed": float(failed),
        "groups/too_small": too_small,
    }


def notices(method: Method, everything: Batch, rollouts: Sequence[Rollout]) -> list[str]:
    """What the user should know of a step in which nothing was trained on for want of rewards."""
    if not rollouts or bool((everything["stage"] > TOO_FEW).any()):
        return []
    failed, scored = sum(rollout.failed for rollout in rollouts), sum(rollout.scored for rollout in rollouts)
    if not scored and not failed:
        return [f"no reward applied to any of the {len(rollouts)} rollouts of this step: nothing was trained on"]
    broken = sum(rollout.status == "failed" for rollout in rollouts)
    why = [f"a reward function failed on {failed - broken}"] if failed > broken else []
    why += [f"the environment of {broken} failed"] if broken else []
    why += [f"no reward applied to {n}"] if (n := len(rollouts) - scored - failed) else []
    return [
        f"no prompt of this step has {method.group_size} rollouts with a reward, which '{method.name}' needs to compare: "
        f"nothing was trained on (of {len(rollouts)} rollouts {', '.join([*why, f'{scored} have a reward'])})"
    ]


def unheard_agents(named: Iterable[str], rollouts: Sequence[Rollout]) -> list[str]:
    """What the user should know of agents that have a model of their own, and spoke in none of the episodes."""
    spoke = sorted({rollout.agent for rollout in rollouts if rollout.turns})
    if not spoke:
        return []
    there = ", ".join(spoke) if any(spoke) else "no agents in them"
    return [
        f"agent_models gives {agent!r} a model, but none of that name spoke in the episodes of this step (there were {there})"
        for agent in named
        if agent not in spoke
    ]
