"""BAPO: Stabilizing Off-Policy RL for LLMs via Balanced Policy Optimization with Adaptive Clipping. arXiv:2510.18927.

Code WooooDyy/BAPO. Confidence: exact; that Eq. 8 divides by the sum of magnitudes (it prints the magnitude of the sum),
and that 0/0 counts as 1, are our reading.

On stale data tokens of negative advantage take over the gradient. For every minibatch the bounds of the ratio itself
(not distances from 1) are opened from their start, a step at a time, until the positive tokens carry enough:

    e_it = |min(rho, c_high) A|  (A > 0)     |max(rho, c_low) A|  (A < 0)
    search="paper":  sum_{A>0} p e / sum p e >= rho0,  p = exp(old_logp);  c_high opens first, then c_low
    search="code":   sum_{A>0} e / sum_{A<0} e >= rho0;                    c_low opens first, then c_high
    loss = max(-A rho, -A clip(rho, c_low, c_high)),  with `dual_clip` at most -A dual_clip where A < 0

Only c_high moves the measure to its target: c_low drops tokens from the gradient that the measure still counts.
Defaults: the paper's (released yaml: "code", rho0 1, dual_clip 3, bounds 0.6 to 0.8 and 1.2 to 2.0 by 0.05, token mean).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from cohort.axes.surrogate import clipped, dual_clipped
from cohort.devices import to_host
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import declare, needs

Span = tuple[float, float, float]


class Balance(NamedTuple):
    """Bounds of the ratio, increments that led to them, and the measure there (inf if nothing is negative)."""

    low: float
    high: float
    steps: int
    measure: float


def bounds(start: float, most: float, step: float) -> list[float]:
    """start, start + step, ... up to most; a value within 1e-12 of it counts as there."""
    out = [start]
    while out[-1] < most - 1e-12:
        out.append(min(out[-1] + step, most))
    return out


def _split(ratio: Tensor, size: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """[K + 1] sums of size * ratio, and of size, over the tokens between neighbouring bounds of the grid [K]."""
    place = torch.bucketize(ratio, grid)
    zero = torch.zeros(grid.numel() + 1, dtype=ratio.dtype, device=ratio.device)
    return zero.index_add(0, place, size * ratio), zero.index_add(0, place, size)


def balance(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, search: str, rho0: float, low: Span, high: Span
) -> Balance:
    """The first bounds on the way whose measure reaches rho0, or the maxima: one pass over the tokens, no gradient."""
    given = (batch.loss_mask, ratio.detach(), advantages.detach(), batch.old_logp.detach())
    mask, ratio, advantages, old = to_host(*given)
    acting = mask & (advantages != 0)
    rho, signed = ratio[acting].double(), advantages[acting].double()
    size = signed.abs() * (old[acting].double().exp() if search == "paper" else 1)
    lows, highs = (torch.tensor(bounds(*span), dtype=rho.dtype, device=rho.device) for span in (low, high))
    inside, count = _split(rho[signed > 0], size[signed > 0], highs)
    positive = inside[:-1].cumsum(0) + highs * (count.sum() - count[:-1].cumsum(0))
    inside, count = _split(rho[signed < 0], size[signed < 0], lows)
    negative = inside[1:].flip(0).cumsum(0).flip(0) + lows * count[:-1].cumsum(0)

    way = torch.arange(len(lows) + len(highs) - 1, device=rho.device)
    first = len(highs) if search == "paper" else len(lows)
    before, after = way.clamp(max=first - 1), (way - first + 1).clamp(min=0)
    at_high, at_low = (before, after) if search == "paper" else (after, before)
    positive, negative = positive[at_high], negative[at_low]
    if search == "code":
        measure = positive / (negative + 1e-8) if bool((signed < 0).any()) else torch.full_like(positive, torch.inf)
    else:
        measure = torch.where(positive + negative > 0, positive / (positive + negative), torch.ones_like(positive))
    steps = min(int((measure < rho0).int().cumprod(0).sum()), len(way) - 1)
    return Balance(float(lows[at_low[steps]]), float(highs[at_high[steps]]), steps, float(measure[steps]))


@needs("old_logp")
@declare(couples=True)
def balanced_clip(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    search: str = "paper",
    rho0: float = 0.4,
    low: Span = (0.6, 0.9, 0.02),
    high: Span = (1.2, 3.0, 0.05),
    dual_clip: float | None = None,
) -> Tensor:
    """l_it = max(-A rho, -A clip(rho, c_low, c_high)), c searched from start to maximum by steps: [N, T]."""
    found = balance(batch, ratio, advantages, search=search, rho0=rho0, low=low, high=high)
    if dual_clip is None:
        return clipped(ratio, advantages, 1 - found.low, found.high - 1)
    return dual_clipped(ratio, advantages, 1 - found.low, found.high - 1, dual_clip)


@recipe(
    title="BAPO: Stabilizing Off-Policy Reinforcement Learning for LLMs via Balanced Policy Optimization",
    paper="arXiv:2510.18927",
    idea="clip bounds searched for every minibatch until positive tokens carry enough of it",
    confidence="exact",
)
def bapo(
    *,
    search: Annotated[str, ("paper", "code")] = "paper",
    rho0: Annotated[float, "[0, inf)"] = 0.4,
    low_start: Annotated[float, "[0, 1]"] = 0.6,
    low_max: Annotated[float, "[0, 1]"] = 0.9,
    low_step: Annotated[float, "(0, inf)"] = 0.02,
    high_start: Annotated[float, "[1, inf)"] = 1.2,
    high_max: Annotated[float, "[1, inf)"] = 3.0,
    high_step: Annotated[float, "(0, inf)"] = 0.05,
    dual_clip: Annotated[float | None, "(1, inf)"] = None,
) -> Method:
    if low_max < low_start or high_max < high_start:
        raise MethodError("'bapo': low_max and high_max must not be below low_start and high_start, where they begin")
    spans = {"low": (low_start, low_max, low_step), "high": (high_start, high_max, high_step)}
    return Method(surrogate=use(balanced_clip, search=search, rho0=rho0, dual_clip=dual_clip, **spans))
