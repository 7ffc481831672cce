"""Dual-clip PPO: Mastering Complex Control in MOBA Games with Deep Reinforcement Learning. arXiv:1912.09729.

Confidence: exact as to verl's function, which has it on by default.

At a negative advantage PPO's objective has no bound below: a stale token of ratio 50 gives a loss of 50 |A|. It ends at
cap |A|, from where the token has no gradient:

    J_it = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A);      J_it = max(J_it, cap A) where A < 0;      loss -J

Log-ratios are held within 20. The mean is the host's. Defaults: cap 3 (paper; verl's scripts for GRPO take 10), clip 0.2.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Mastering Complex Control in MOBA Games with Deep Reinforcement Learning",
    paper="arXiv:1912.09729",
    idea="the loss of a negative advantage ends at cap |A|",
    confidence="exact",
)
def dual_clip(
    *,
    cap: Annotated[float, "(1, inf)"] = 3.0,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    return Method(
        ratio=use(ratio.token_bounded), surrogate=use(surrogate.dual_clip, low=clip_low, high=clip_high, cap=cap)
    )
