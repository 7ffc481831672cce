"""Whether answers follow from their reasoning, watched over a run. Source: arXiv:2512.14944."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.types.declare import State

SLACK = 1e-12
NAN = math.nan


def consistency(correct: Tensor, verdict: Tensor) -> dict[str, float]:
    """RAC and the shares of right or wrong with consistent or inconsistent, over the rollouts with a verdict; NaN without any.

    Args:
        correct: [N] 1 or 0; verdict: [N] 1, 0 or NaN.
    """
    known = ~verdict.isnan()
    right, agrees = correct[known] > 0, verdict[known] > 0
    shares = {
        "correct_consistent": right & agrees,
        "correct_inconsistent": right & ~agrees,
        "wrong_consistent": ~right & agrees,
        "wrong_inconsistent": ~right & ~agrees,
    }
    found = {"rac": agrees, **shares}
    return {name: float(each.double().mean()) if known.any() else NAN for name, each in found.items()}


def unwatched() -> State:
    """The monitor before the first step."""
    return {"ema": NAN, "best": NAN, "best_step": -1, "count": 0, "step": 0, "alarm": 0.0, "rac": [], "accuracy": []}


def watched(state: State, rac: float, *, ema_alpha: float, patience: int, drop: float) -> State:
    """The monitor after a further step; one without a verdict (NaN) leaves all but the step as it was."""
    step = state["step"]
    if math.isnan(rac):
        return {**state, "step": step + 1}
    ema = rac if math.isnan(state["ema"]) else (1 - ema_alpha) * state["ema"] + ema_alpha * rac
    best, best_step = state["best"], state["best_step"]
    if math.isnan(best) or ema > best + SLACK:
        best, best_step = ema, step
    count = state["count"] + 1 if ema < best - drop - SLACK else 0
    now = {"ema": ema, "best": best, "best_step": best_step, "count": count, "alarm": float(count >= patience)}
    return {**state, **now, "step": step + 1}


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation of two series; NaN where one is constant, or there are fewer than two values."""
    if len(first) < 2 or min(first) == max(first) or min(second) == max(second):
        return NAN
    return float(torch.corrcoef(torch.tensor([list(first), list(second)], dtype=torch.float64))[0, 1])
