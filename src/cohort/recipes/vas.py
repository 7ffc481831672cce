"""VAS: Variance-Aware Sampling (MMR1: Enhancing Multimodal Reasoning with Variance-Aware Sampling). arXiv:2509.21268.

Code LengSicong/MMR1. Confidence: reconstructed: the weights of the score's two parts, 1 - self-BLEU for the paper's "inverse
self-BLEU". Known: everything else.

Every `refresh` steps the current policy answers every prompt of the data set `scoring_rollouts` times (n); P is the share of
right answers:

    VPS = weight_outcome P (1 - P) + weight_diversity TDS       TDS: 1 - self-BLEU, distinct-3 or mean edit distance
    w   = (VPS - min) / (max - min + 1e-8)                      over the data set
    W  <- momentum W + (1 - momentum) w                         W = w at first

Of the B prompts of a step, floor(ratio B) are drawn with replacement in proportion to W (uniformly, if all are 0); the others
come in turn from one fixed permutation of the data set. A prompt that a step draws twice is one larger group.

The scoring pass is what it costs: n rollouts of every prompt each `refresh` steps. With `momentum` 1 the first weights stay.

Defaults: n 8, ratio 0.5, refresh 4, momentum 0, outcome variance alone (released configuration; it adds the k3 KL term at
0.01).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals import diversity
from cohort.types import StepInfo, grouped
from cohort.types.access import Pool
from cohort.types.declare import State, hooks

DIVERSITY: dict[str, Callable[[Sequence[Sequence[int]]], float]] = {
    "self-bleu": lambda completions: 1 - diversity.self_bleu(completions),
    "distinct-3": diversity.distinct,
    "edit-distance": diversity.mean_edit_distance,
}
AT_ONCE = 256  # prompts whose rollouts are held together in the scoring pass


def promotion_score(right: Sequence[float], spread: float, *, weight_outcome: float, weight_diversity: float) -> float:
    """VPS of a prompt whose rollouts have this diversity and these accuracies, NaN where nothing says which."""
    rate = sum(known := [each for each in right if not math.isnan(each)]) / max(1, len(known))
    return weight_outcome * rate * (1 - rate) + weight_diversity * spread


def refreshed(weights: Tensor | None, scores: Tensor, *, momentum: float, eps: float = 1e-8) -> Tensor:
    """W [size] after new scores [size]; None before the first."""
    new = (scores - scores.min()) / (scores.max() - scores.min() + eps)
    return new if weights is None else momentum * weights + (1 - momentum) * new


def mixed(weighted: Tensor, order: Tensor, position: int, count: int) -> tuple[Tensor, int]:
    """A batch of rows in turn from `weighted` and from the next `count` of `order`, then the rest of the longer list.

    Returns:
        the rows, and the position after them; where fewer than `count` are left, the order begins anew.
    """
    taken = order[:0]
    while taken.numel() < count:
        part = min(count - taken.numel(), order.numel())
        position = position if position + part <= order.numel() else 0
        taken, position = torch.cat([taken, order[position : position + part]]), position + part
    both = min(weighted.numel(), count)
    pairs = torch.stack([weighted[:both], taken[:both]], 1).flatten()
    return torch.cat([pairs, weighted[both:], taken[both:]]), position


def _scores(pool: Pool, count: int, metric: str, weights: dict[str, float]) -> Tensor:
    """VPS [size] of every prompt; 0 where no rollout has a reward."""
    scores = torch.zeros(len(pool.prompts), dtype=torch.float64)
    for rows in torch.arange(len(pool.prompts)).split(AT_ONCE):
        found = {group.prompt.id: group.rollouts for group in grouped(pool.draw(rows, count))}
        for row in rows.tolist():
            if own := found.get(pool.prompts[row].id):
                spread = DIVERSITY[metric]([each.tokens for each in own]) if weights["weight_diversity"] else 0.0
                scores[row] = promotion_score([each.accuracy for each in own], spread, **weights)
    return scores


def _unscored(size: int) -> State:
    return {"weights": None, "scored": -1, "order": torch.empty(0, dtype=torch.int64), "position": 0, "size": size}


@hooks(init=_unscored)
def half_by_score(
    state: State,
    *,
    count: int,
    rng: torch.Generator,
    pool: Pool,
    info: StepInfo,
    ratio: float = 0.5,
    refresh: int = 4,
    momentum: float = 0.0,
    scoring_rollouts: int = 8,
    metric: str = "self-bleu",
    weight_outcome: float = 1.0,
    weight_diversity: float = 0.0,
) -> tuple[Tensor, State]:
    """Half of the prompts by score, half in turn. Source: algorithm 1, arXiv:2509.21268."""
    weights, scored = state["weights"], state["scored"]
    order = state["order"] if state["order"].numel() else torch.randperm(state["size"], generator=rng)
    if scored < 0 or info.step - scored >= refresh:
        parts = {"weight_outcome": weight_outcome, "weight_diversity": weight_diversity}
        weights, scored = (
            refreshed(weights, _scores(pool, scoring_rollouts, metric, parts), momentum=momentum),
            info.step,
        )
    by_score = int(ratio * count + 1e-9)
    chances = weights if bool((weights > 0).any()) else torch.ones_like(weights)
    drawn = torch.multinomial(chances, by_score, replacement=True, generator=rng) if by_score else order[:0]
    rows, position = mixed(drawn, order, state["position"], count - by_score)
    return rows, {**state, "weights": weights, "scored": scored, "order": order, "position": position}


@recipe(
    title="MMR1: Enhancing Multimodal Reasoning with Variance-Aware Sampling and Open Resources",
    paper="arXiv:2509.21268",
    idea="half of the prompts by how varied their answers were when all were last tried",
    confidence="reconstructed: weights of the score's parts, the inversion of self-BLEU",
)
def vas(
    *,
    ratio: Annotated[float, "[0, 1]"] = 0.5,
    refresh: Annotated[int, "[1, inf)"] = 4,
    momentum: Annotated[float, "[0, 1]"] = 0.0,
    scoring_rollouts: Annotated[int, "[1, inf)"] = 8,
    metric: Annotated[str, ("self-bleu", "distinct-3", "edit-distance")] = "self-bleu",
    weight_outcome: Annotated[float, "[0, inf)"] = 1.0,
    weight_diversity: Annotated[float, "[0, inf)"] = 0.0,
) -> Method:
    parts = {"metric": metric, "weight_outcome": weight_outcome, "weight_diversity": weight_diversity}
    when = {"refresh": refresh, "momentum": momentum, "scoring_rollouts": scoring_rollouts}
    return Method(curriculum=use(half_by_score, ratio=ratio, **when, **parts))
