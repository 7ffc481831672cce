"""G2RPO (Gaussian GRPO): OpenVLThinkerV2, a Generalist Multimodal Reasoning Model. arXiv:2604.08539.

Code uclanlp/OpenVLThinker. Confidence: the Gaussian advantage is exact; reconstructed: the slopes of the length reward,
form and scale of the entropy penalty. No threshold was published, so both are off until `lengths` and `entropy_bounds`
are given. (Not Granular GRPO for flow models, nor G2RPO-A.)

Rewards of different shape, from 0 and 1 to dense ones, give the same advantages: the rollout of rank k among the G of
its group gets the k-th quantile of the normal distribution, equal rewards the mean of theirs:

    A_i = mean of Phi^-1((k - 0.5) / G) over the ranks k of its reward
    r_i <- r_i + length_weight trapezoid(L_i)          0 up to l_min, 1 from l_a to l_b, 0 from l_max on
    loss + entropy_coef mean_k (max(0, H_lo - H_k) + max(0, H_k - H_hi))        H_k: mean token entropy of task k

Groups that are right or wrong throughout are discarded. `task` names the column of the data that tells tasks apart, and
`tasks` its values in the order of `lengths` ((l_min, l_a, l_b, l_max) for each task) and of `entropy_bounds` ((H_lo,
H_hi) for each); without `tasks` the column holds 0, 1, ..; without `task` all rows are one task.

Defaults: length_weight 0.2 and entropy_coef 0.1 are ours.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.filter import mixed_accuracy
from cohort.axes.shaping import trapezoid
from cohort.errors import UsageError
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_order, token_sum
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

PerTask = tuple[tuple[float, ...], ...]
# How many numbers a task has in each table.
WIDTH = {"lengths": 4, "entropy_bounds": 2}


@declare(group_size=2)
def gaussian_ranks(batch: Batch) -> Tensor:
    """A_i = mean of Phi^-1((k - 0.5) / G) over the ranks of its reward: [N], 0 in flat groups. Source: section 3."""
    rewards, groups = batch.rewards, batch.groups
    order, rank, _ = group_order(rewards, groups)
    size = groups.size[groups.index]
    quantile = torch.special.ndtri((rank + 0.5) / size.to(rewards.dtype))
    sorted_rewards, sorted_groups = rewards[order], groups.index[order]
    new = torch.ones_like(order)
    new[1:] = ((sorted_rewards[1:] != sorted_rewards[:-1]) | (sorted_groups[1:] != sorted_groups[:-1])).to(new.dtype)
    tie = torch.empty_like(order).index_copy(0, order, new.cumsum(0) - 1)
    count = torch.bincount(tie)
    mean = torch.zeros(len(count), dtype=quantile.dtype, device=quantile.device).index_add(0, tie, quantile) / count
    return torch.where(group_flat(rewards, groups)[groups.index], torch.zeros_like(rewards), mean[tie])


def task_ids(batch: Batch, access: ModelAccess, *, task: str | None, tasks: tuple[str | int, ...]) -> Batch:
    """on_scored hook: the batch with `task_id` [N], the place of each row's task among the tasks."""
    place = {value: k for k, value in enumerate(tasks)}
    named = [tasks[0]] * batch.size if task is None else access.column(task)
    for value in named:
        if value not in place:
            raise UsageError(f"g2rpo: the column '{task}' holds {value!r}, which is none of the tasks {tasks!r}")
    return batch.with_rollouts(task_id=torch.tensor([place[value] for value in named], device=batch.device))


@needs("task_id")
@hooks(on_scored=task_ids)
@declare(columns=("task",), provides=("task_id",))
def length_shaped(batch: Batch, *, lengths: PerTask, length_weight: float) -> Tensor:
    """r_i + length_weight trapezoid(L_i) with the corners of its task: [N]."""
    corners = torch.tensor(lengths, dtype=batch.dtype, device=batch.device)[batch["task_id"]]
    return batch.rewards + length_weight * trapezoid(batch.lengths, corners)


def band_penalty(batch: Batch, *, bounds: PerTask) -> tuple[Tensor, Tensor]:
    """(H [K], penalty): mean token entropy of each task, and how far it is beyond its bounds, mean over tasks present."""
    entropy = token_sum(batch["entropy"], batch.mask)
    low, high = torch.tensor(bounds, dtype=entropy.dtype, device=batch.device).unbind(1)
    total = torch.zeros_like(low).index_add(0, batch["task_id"], entropy)
    count = torch.zeros_like(low).index_add(0, batch["task_id"], batch.mask.sum(1).to(low.dtype))
    mean, there = total / count.clamp(min=1), (count > 0).to(low.dtype)
    beyond = torch.relu(low - mean) + torch.relu(mean - high)
    return mean, (there * beyond).sum() / there.sum().clamp(min=1)


@needs("task_id", "entropy")
@hooks(on_scored=task_ids)
@declare(columns=("task",), provides=("task_id",), couples=True)
def entropy_band(batch: Batch, *, entropy_bounds: PerTask, entropy_coef: float) -> Tensor:
    """entropy_coef times the mean distance of the tasks' entropies from their bands: scalar."""
    return entropy_coef * band_penalty(batch, bounds=entropy_bounds)[1]


@recipe(
    title="OpenVLThinkerV2: A Generalist Multimodal Reasoning Model for Multi-domain Visual Tasks",
    paper="arXiv:2604.08539",
    idea="advantages are normal quantiles of the reward's rank, whatever its scale",
    confidence="reconstructed: slopes of the length reward, form and scale of the entropy penalty, all thresholds",
)
def g2rpo(
    *,
    task: str | None = None,
    tasks: tuple[str | int, ...] | None = None,
    lengths: PerTask | None = None,
    length_weight: Annotated[float, "[0, inf)"] = 0.2,
    entropy_bounds: PerTask | None = None,
    entropy_coef: Annotated[float, "[0, inf)"] = 0.1,
    discard_uniform: bool = True,
) -> Method:
    tables = {"lengths": lengths or (), "entropy_bounds": entropy_bounds or ()}
    tasks = tuple(tasks or range(max(1, *map(len, tables.values())) if task is not None else 1))
    for name, rows in tables.items():
        for row in rows:
            if len(rows) != len(tasks) or len(row) != WIDTH[name] or list(row) != sorted(row):
                raise MethodError(
                    f"'g2rpo': {name}={rows!r} must be {len(tasks)} rows, one for each task, of {WIDTH[name]} rising numbers"
                )
    of = {"task": task, "tasks": tasks}
    reward = {"lengths": tables["lengths"], "length_weight": length_weight}
    band = {"entropy_bounds": tables["entropy_bounds"], "entropy_coef": entropy_coef}
    return Method(
        shaping=(use(length_shaped, **of, **reward),) if lengths else (),
        filter=(use(mixed_accuracy, max_rounds=1),) if discard_uniform else (),
        advantage=use(gaussian_ranks),
        regularizer=(use(entropy_band, **of, **band),) if entropy_bounds else (),
    )
