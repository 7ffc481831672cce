"""Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation. arXiv:2509.25849.

Confidence: reconstructed. Known: value, bounds, total, source of the success rate, the minimum for p = 1. Inferred:
ties, prompts never seen, how the left-over is dealt, min_gain.

    Value(n, p) = [1 - p^n - (1 - p)^n] p (1 - p)^2        chance of a gradient x what it gains
    maximise sum_i Value(N_i, p_i)  s.t.  sum_i N_i = M G,  n_low <= N_i <= n_up

Value is concave in n, so handing out one rollout at a time to the largest marginal value is optimal. Left-over budget
goes round-robin to the prompts never solved, then to those always solved, then to the others. A prompt without an
estimate gets G. p_i is the mean accuracy of the prompt's rollouts when it was last drawn.

Defaults: n_low 2 and n_up 128 (paper's example).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import by_prompt, group_mean
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks


def value(n: int, p: float) -> float:
    """Value of n rollouts for a prompt with success rate p."""
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def expected_rollouts(p: float) -> float:
    """Expected number of rollouts until both outcomes have appeared, for 0 < p < 1."""
    return 1 / p + 1 / (1 - p) - 1


def rollouts_for(p: float, level: float) -> int:
    """Smallest n with 1 - p^n - (1 - p)^n >= level, for 0 < p < 1."""
    n = 1
    while 1 - p**n - (1 - p) ** n < level:
        n += 1
    return n


def allocate(
    p: Sequence[float | None], *, total: int, default_n: int, n_low: int = 2, n_up: int = 128, min_gain: float = 0.0
) -> list[int]:
    """Rollouts for each prompt.

    Args:
        p: success rates; None for a prompt never seen.
        total: rollouts to give out; default_n: rollouts of a prompt never seen.

    Raises:
        ValueError: the total does not fit the bounds.
    """
    unseen = [i for i, rate in enumerate(p) if rate is None]
    known = {i: rate for i, rate in enumerate(p) if rate is not None}
    budget = total - default_n * len(unseen)
    if n_low * len(known) > budget or (not unseen and n_up * len(known) < budget):
        raise ValueError(
            f"knapsack: {budget} rollouts for {len(known)} prompts do not fit n_low={n_low} to n_up={n_up} for each"
        )
    given = [default_n if rate is None else n_low for rate in p]
    left = budget - n_low * len(known)
    middle = [i for i, rate in known.items() if 0 < rate < 1]
    gains = [(-(value(n_low + 1, known[i]) - value(n_low, known[i])), i) for i in middle]
    heapq.heapify(gains)
    while left and gains and -gains[0][0] > min_gain:
        _, i = heapq.heappop(gains)
        given[i], left = given[i] + 1, left - 1
        if given[i] < n_up:
            heapq.heappush(gains, (-(value(given[i] + 1, known[i]) - value(given[i], known[i])), i))
    for pool in ([i for i in known if known[i] == 0], [i for i in known if known[i] == 1], middle):
        while left and (room := [i for i in pool if given[i] < n_up]):
            for i in room[:left]:
                given[i] += 1
            left -= min(left, len(room))
    return given


def _unseen(size: int) -> State:
    return {"success": torch.full((size,), math.nan, dtype=torch.float64)}


def _measure(batch: Batch, state: State) -> State:
    success, prompts = state["success"].clone(), by_prompt(batch)
    success[prompts.labels] = group_mean(batch["accuracy"].cpu(), prompts).to(success.dtype)
    return {"success": success}


@declare(group_size=2)
@hooks(init=_unseen, on_rollouts=_measure)
def knapsack_budget(
    rows: Tensor, state: State, *, group_size: int, n_low: int = 2, n_up: int = 128, min_gain: float = 0.0
) -> Tensor:
    """Counts [M] that sum to at most M * group_size. Source: arXiv:2509.25849."""
    rates = [None if math.isnan(p) else p for p in state["success"][rows].tolist()]
    bounds = {"n_low": min(n_low, group_size), "n_up": max(n_up, group_size), "min_gain": min_gain}
    return torch.tensor(allocate(rates, total=group_size * len(rates), default_n=group_size, **bounds))  # type: ignore[arg-type]


@recipe(
    title="Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation",
    paper="arXiv:2509.25849",
    idea="more rollouts for prompts where they are likely to bring a gradient",
    confidence="reconstructed: ties, unseen prompts, left-over, min_gain",
)
def knapsack(
    *,
    n_low: Annotated[int, "[2, inf)"] = 2,
    n_up: Annotated[int, "[2, inf)"] = 128,
    min_gain: Annotated[float, "[0, inf)"] = 0.0,
) -> Method:
    return Method(budget=use(knapsack_budget, n_low=n_low, n_up=n_up, min_gain=min_gain))
