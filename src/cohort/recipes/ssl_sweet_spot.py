"""SSL: Sweet Spot Learning for Differentiated Guidance in Agentic Optimization. arXiv:2601.22491.

Confidence: reconstructed. Known: R = C + alpha S_hat, four zones, Gaussian fields for clicks, block matches for grids.
Inferred: the mean over steps, the width of the Gaussian, the share of matching cells, the leading-step score, alpha.

    S     = mean of the step proximities of the trajectory, in [0, 1]
    S_hat = min(K - 1, floor(K S)) / (K - 1)
    R     = C + alpha S_hat                     C: 1 if the verifier calls it correct, else 0

A near miss earns more than a wild one and a clean success more than a sloppy one, and with alpha < 1 any success more
than any failure. S is what the reward named `proximity` gives: a function of the user's reward file, which may call the
functions below. Of other rewards only the verifier's counts.

    from cohort.recipes.ssl_sweet_spot import grid, mean_score

    def proximity(completions, answer, **columns):
        return [grid(read(text), gold) for text, gold in zip(completions, answer)]

Defaults: K 4 (paper), alpha 0.5, spread 1 (inferred), blocks of 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import declare

Grid = Sequence[Sequence[object]]


def mean_score(proximities: Sequence[float]) -> float:
    """S of a trajectory from the proximities of its steps; 0 without steps."""
    return sum(proximities) / len(proximities) if len(proximities) else 0.0


def click(point: Sequence[float], box: Sequence[float], *, spread: float = 1.0) -> float:
    """exp(-((x - cx)^2 / sx^2 + (y - cy)^2 / sy^2) / 2) of a click at (x, y) for the box (x1, y1, x2, y2).

    (cx, cy) is the centre of the box, sx and sy are `spread` times half its sides.
    """
    (x, y), (x1, y1, x2, y2) = point, box
    sx, sy = spread * max((x2 - x1) / 2, 1e-6), spread * max((y2 - y1) / 2, 1e-6)
    return math.exp(-0.5 * (((x - (x1 + x2) / 2) / sx) ** 2 + ((y - (y1 + y2) / 2) / sy) ** 2))


def grid(answer: Grid | None, gold: Grid, *, block: int = 3) -> float:
    """Mean over blocks of `block` x `block` cells (smaller at the border) of the share of cells as in `gold`.

    0 for no grid, and for one of another shape.
    """
    if answer is None or [len(row) for row in answer] != [len(row) for row in gold]:
        return 0.0
    shares = []
    for top in range(0, len(gold), block):
        for left in range(0, len(gold[0]), block):
            rows, columns = range(top, min(top + block, len(gold))), range(left, min(left + block, len(gold[0])))
            shares.append(mean_score([float(answer[i][j] == gold[i][j]) for i in rows for j in columns]))
    return mean_score(shares)


def leading(steps: Sequence[float]) -> float:
    """Share of the steps before the first wrong one, from 1 (right) or 0 (wrong) for each; 0 without steps."""
    wrong = next((i for i, step in enumerate(steps) if not step), len(steps))
    return wrong / len(steps) if len(steps) else 0.0


def zones(scores: Tensor, *, tiers: int) -> Tensor:
    """min(tiers - 1, floor(tiers S)) of scores in [0, 1], of their shape and type."""
    # A border stays in the zone above it, also where the score is a rounded float32.
    slack = 1e-9 if scores.dtype == torch.float64 else 1e-6
    return (tiers * scores + slack).floor().clamp(0, tiers - 1)


def tier_value(scores: Tensor, *, tiers: int) -> Tensor:
    """S_hat of scores in [0, 1]: their zone, scaled to [0, 1]."""
    return zones(scores, tiers=tiers) / (tiers - 1)


@declare(components=("proximity",))
def sweet_spot(
    batch: Batch, *, proximity: str = "proximity", tiers: int = 4, alpha: float = 0.5, info: StepInfo
) -> Tensor:
    """C_i + alpha min(K - 1, floor(K S_i)) / (K - 1): [N]. Source: arXiv:2601.22491."""
    return batch["accuracy"] + alpha * tier_value(component(batch, proximity, info), tiers=tiers)


@recipe(
    title="SSL: Sweet Spot Learning for Differentiated Guidance in Agentic Optimization",
    paper="arXiv:2601.22491",
    idea="a tier of how near the trajectory came, added to the outcome",
    confidence="reconstructed: mean over steps, Gaussian width, block and leading-step scores, alpha",
)
def ssl_sweet_spot(
    *, proximity: str = "proximity", tiers: Annotated[int, "[2, inf)"] = 4, alpha: Annotated[float, "[0, 1)"] = 0.5
) -> Method:
    return Method(shaping=(use(sweet_spot, proximity=proximity, tiers=tiers, alpha=alpha),))
