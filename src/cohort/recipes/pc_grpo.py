"""PC-GRPO: Puzzle Curriculum GRPO for Vision-Centric Reasoning (later: PuzzleCraft). arXiv:2512.14944.

Confidence: reconstructed: the formula of the weight, where it multiplies, the size of the bonus.

Puzzles of any picture need no label (`cohort data puzzles`): order its tiles, name the angle by which it was turned, pick the
patch that was cut out. The reward `puzzle` is the share of tiles in place, or 0 or 1. Groups of medium difficulty count most:

    d_g = mean_g a_i                                   a_i in [0, 1]: how much of the puzzle rollout i solved
    w_g = floor + (1 - floor) 4 d_g (1 - d_g)          1 at d_g = 1/2, floor at 0 and 1; afresh at every step
    A_i = w_g (r_i - mean_g r) / (std_g r + eps)

With `explore`, w_g is multiplied by (distinct answers - 1) / (G - 1): groups that have collapsed on one answer count less.

With `consistent`, the name of a reward of 0 or 1 that says whether the answer follows from the reasoning (a judge's), rollouts
with r_i > 0 get `bonus` where it does; the share of such rollouts is reported as consistency/share.

Defaults: floor 0 (ours), bonus 0.5 (ours), explore off (the first version).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import advantage
from cohort.axes.credit import weight_groups
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, group_size
from cohort.signals.components import component
from cohort.signals.votes import answer_count, answer_ids, unanswered_apart
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare, hooks, needs


def difficulty_weight(solved: Tensor, *, floor: float = 0.0) -> Tensor:
    """floor + (1 - floor) 4 d (1 - d) for mean accuracies d [P] in [0, 1]."""
    return floor + (1 - floor) * 4 * solved * (1 - solved)


def dispersion(distinct: Tensor, size: Tensor) -> Tensor:
    """(distinct answers - 1) / (G - 1) [P]; 0 in a group of one."""
    return (distinct - 1).clamp(min=0) / (size - 1).clamp(min=1)


def by_difficulty(batch: Batch, advantages: Tensor, *, floor: float = 0.0) -> Tensor:
    """w_g A_it: [N, T]. Source: arXiv:2512.14944, its figure of the method."""
    solved = group_mean(batch["accuracy"].to(batch.dtype).clamp(0, 1), batch.groups)
    return weight_groups(batch, advantages, difficulty_weight(solved, floor=floor))


@needs("answer_id")
@hooks(on_scored=answer_ids)
@declare(provides=("answer_id",))
def by_dispersion(batch: Batch, advantages: Tensor) -> Tensor:
    """A_it times the dispersion of the group's answers: [N, T]; a rollout without an answer differs from all others."""
    distinct = answer_count(unanswered_apart(batch["answer_id"]), batch.groups).to(batch.dtype)
    return weight_groups(batch, advantages, dispersion(distinct, group_size(batch.groups, batch.dtype)))


@needs("reward_components")
@declare(components=("consistent",))
def consistency_bonus(
    batch: Batch, *, consistent: str = "consistent", bonus: float = 0.5, info: StepInfo
) -> tuple[Tensor, dict[str, float]]:
    """r_i + bonus where r_i > 0 and the answer follows from the reasoning: [N], and the share of rollouts where it does."""
    follows = component(batch, consistent, info)
    paid = torch.where(batch.rewards > 0, bonus * follows, torch.zeros_like(follows))
    return batch.rewards + paid, {"consistency/share": float(follows.mean())}


@recipe(
    title="Puzzle Curriculum GRPO for Vision-Centric Reasoning",
    paper="arXiv:2512.14944",
    idea="puzzles that any picture makes, graded; groups of medium difficulty count most",
    confidence="reconstructed: the weight's formula and place, the size of the consistency bonus",
    rewards=("puzzle",),
)
def pc_grpo(
    *,
    floor: Annotated[float, "[0, 1]"] = 0.0,
    explore: bool = False,
    consistent: str | None = None,
    bonus: Annotated[float, "[0, inf)"] = 0.5,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
) -> Method:
    return Method(
        shaping=() if consistent is None else (use(consistency_bonus, consistent=consistent, bonus=bonus),),
        advantage=use(advantage.zscore, eps=adv_eps),
        credit=(use(by_difficulty, floor=floor), *((use(by_dispersion),) if explore else ())),
    )
