"""Curriculum axis: which prompts next.

A function takes its state, how many prompts to pick and a source of randomness, and returns rows of the data set
(int64, without repetition within a pick unless the data set is smaller; a prompt picked twice is one larger group) and the
new state. It may name `pool: Pool`, which draws rollouts of any prompts to find out about them, and may return a third thing:
a mapping for each row, which the requests of that row carry as `meta`, for the method's guidance or sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.types.declare import State, hooks


def _init(size: int) -> State:
    return {"order": torch.empty(0, dtype=torch.int64), "position": 0, "epoch": 0, "size": size}


@hooks(init=_init)
def uniform(state: State, *, count: int, rng: torch.Generator) -> tuple[Tensor, State]:
    """Every prompt once an epoch, in an order shuffled anew for each.

    Returns:
        rows [count] int64, and the state (order, position, epoch).
    """
    return in_epochs(state, torch.arange(state["size"]), count=count, rng=rng)


def in_epochs(state: State, offered: Tensor, *, count: int, rng: torch.Generator) -> tuple[Tensor, State]:
    """Each offered row once an epoch, in an order shuffled anew for each.

    Args:
        state: with order, position, epoch.
        offered: rows [n] int64 of the epochs that begin now; one that goes on keeps its own.

    Returns:
        rows [count] int64, and the state.
    """
    order, position, epoch = state["order"], state["position"], state["epoch"]
    rows = []
    while count > 0:
        if position == order.numel():
            order, position, epoch = offered[torch.randperm(offered.numel(), generator=rng)], 0, epoch + 1
        taken = order[position : position + count]
        rows.append(taken)
        position, count = position + taken.numel(), count - taken.numel()
    return torch.cat(rows), {**state, "order": order, "position": position, "epoch": epoch}


def draw_weighted(weights: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Rows drawn without replacement with probability proportional to `weights` [size]; uniform if all are 0.

    With fewer rows than `count`, whole passes over the data set come first, so that no row is left out.
    """
    if not bool((weights > 0).any()):
        weights = torch.ones_like(weights)
    size = weights.numel()
    passes = [torch.randperm(size, generator=rng) for _ in range(count // size)]
    rest = count % size
    if rest:
        # Gumbel top-k draws without replacement with the right probabilities, also where a weight is 0.
        noise = torch.rand(size, generator=rng, dtype=torch.float64).clamp(min=1e-300)
        keys = weights.double().log() - (-noise.log()).log()
        passes.append(keys.topk(rest).indices)
    return torch.cat(passes)


def highest(scores: Tensor, count: int) -> Tensor:
    """Rows [count] of the largest of `scores` [size], best first, the lower row where two are equal.

    With fewer rows than `count` they come again in that order.
    """
    order = scores.sort(descending=True, stable=True).indices
    return order.repeat(-(-count // max(1, order.numel())))[:count]


def draw_beta(alpha: Tensor, beta: Tensor, rng: torch.Generator) -> Tensor:
    """[n] draws from Beta(alpha, beta), float64."""
    shapes = torch.stack([alpha, beta]).double()
    drawn: Tensor = torch._standard_gamma(shapes, generator=rng)
    return drawn[0] / drawn.sum(0)
