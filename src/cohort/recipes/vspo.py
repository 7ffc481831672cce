"""VSPO: Enhancing Agentic RL with Progressive Reward Shaping and Value-based Sampling Policy Optimization.

arXiv:2512.07478. Confidence: reconstructed: draws among the rollouts of the batch, in proportion to the value; the
population standard deviation; the damping. Known: the value, zero-signal samples replaced by prompts drawn by value, and
a damping of those drawn repeatedly. (The paper's reward shaping is a method of its own.)

    V_g = max(r_max - mean_g r, 0) std_g r                    room for improvement x uncertainty
    a group of equal rewards gives way to one of the others, drawn with replacement with probability V_g / sum V
    A  <- A s(c_g),  s(c) = (1 + ln c) / c,  c_g = 1 + how often g was drawn      for g and its copies

The k-th rollout of the replaced group becomes the k-th of the drawn one, so that the batch keeps its size and order (in
a smaller group drawn for a larger one the count starts again). All values 0: drawn uniformly. No group with a signal:
nothing is replaced. The draws depend on the run's seed and the step alone.

Defaults: r_max 1 (rewards of 0 and 1); the paper trains with 5 rollouts a prompt and a KL weight of 0.001.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_mean, group_order, group_std
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def task_values(batch: Batch, *, r_max: float = 1.0) -> tuple[Tensor, Tensor]:
    """V [P] of every group, and which groups have no signal [P] bool."""
    groups, rewards = batch.groups, batch.rewards
    room = (r_max - group_mean(rewards, groups)).clamp(min=0)
    return room * group_std(rewards, groups), group_flat(rewards, groups)


def draw_probabilities(values: Tensor, flat: Tensor) -> Tensor:
    """[P] probability that a group is drawn: its share of the values; uniform if all are 0; 0 without a signal."""
    values = torch.where(flat, torch.zeros_like(values), values)
    weights = values if bool((values > 0).any()) else (~flat).to(values.dtype)
    return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def smoothing(copies: Tensor) -> Tensor:
    """s(c) = (1 + ln c) / c."""
    return (1 + copies.log()) / copies


def _draws(batch: Batch, access: ModelAccess, *, info: StepInfo) -> Batch:
    """A number in [0, 1) for every rollout, of which the first of a replaced group picks the group that comes instead."""
    seed = 1_000_003 * info.seed + info.step
    numbers = torch.rand(batch.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return batch.with_rollouts(draw=numbers.to(batch.device, batch.dtype))


def replacements(batch: Batch, *, r_max: float = 1.0) -> Tensor:
    """[P] int64: the group that stands at each group's place, itself where it has a signal or none has."""
    values, flat = task_values(batch, r_max=r_max)
    groups = batch.groups
    order, _, start = group_order(torch.zeros_like(groups.index), groups)
    reach = draw_probabilities(values, flat).cumsum(0)
    # Never quite the end, beyond which there is no group.
    numbers = batch["draw"][order[start]].to(reach.dtype) * reach[-1] * (1 - 4 * torch.finfo(reach.dtype).eps)
    drawn = torch.searchsorted(reach, numbers, right=True)
    own = torch.arange(groups.count, device=batch.device)
    return torch.where(flat & ~flat.all(), drawn.clamp(max=groups.count - 1), own)


def replaced(batch: Batch, *, r_max: float = 1.0) -> Batch:
    """The batch with `source_row` and `copies` [N], and advantages damped by how often their group now stands in it."""
    groups = batch.groups
    chosen = replacements(batch, r_max=r_max)
    order, rank, start = group_order(torch.zeros_like(groups.index), groups)
    size = groups.size
    source = chosen[groups.index]
    rows = order[start[source] + rank % size[source]]
    copies = torch.bincount(chosen, minlength=groups.count).clamp(min=1)[groups.index].to(batch.dtype)
    damped = batch.replace(advantages=batch.advantages * smoothing(copies)[:, None])
    return damped.with_rollouts(source_row=rows, copies=copies)


@needs("draw")
@hooks(on_scored=_draws, on_advantages=replaced)
@declare(after_advantage=True, group_size=2, provides=("draw",))
def value_sampling(batch: Batch) -> Tensor:
    """Rows [N] int64: those of drawn groups in place of those without a signal. Source: arXiv:2512.07478."""
    return batch["source_row"]


@recipe(
    title="Enhancing Agentic RL with Progressive Reward Shaping and Value-based Sampling Policy Optimization",
    paper="arXiv:2512.07478",
    idea="groups without a signal give way to copies of groups worth learning from, damped",
    confidence="reconstructed: draws within the batch and their probabilities, population std, the damping",
)
def vspo(*, r_max: Annotated[float, "(-inf, inf)"] = 1.0) -> Method:
    return Method(filter=(use(value_sampling, r_max=r_max),))
