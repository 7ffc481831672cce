"""Skywork-OR1: Skywork Open Reasoner 1 Technical Report (adaptive entropy control). arXiv:2505.22312.

Code SkyworkAI/Skywork-OR1. Confidence: exact (the authors' controller), but that the step's entropy is the mean over the
distributions its tokens were drawn from, where the authors' code estimates it by -mean(old_logp).

A fixed entropy bonus is too weak or blows the entropy up. Its coefficient follows the entropy H of the policy:

    loss of step k = token mean of the clipped loss - a_k H,         a_k = c_k g_k
    below = H_k < target;   c_{k+1} = clip(c_k + delta if below else c_k - delta, low, high);   g_{k+1} = [below]

Groups with equal rewards are left out before, and count in no divisor. Left out: the stages of growing length.

Defaults: target 0.2, delta 1e-4, c from 0 within [0, 0.005] (released scripts; TRL takes delta 0.005, up to 1).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, filter, surrogate
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.declare import State, hooks, needs


def _start(start: float) -> State:
    return {"coefficient": start, "gate": 1.0}


def controlled(state: State, entropy: float, *, delta: float, low: float, high: float, target: float) -> State:
    """c and g after a step whose policy had this entropy (nats)."""
    below = entropy < target
    moved = state["coefficient"] + (delta if below else -delta)
    return {"coefficient": min(max(moved, low), high), "gate": float(below)}


def _control(batch: Batch, state: State, *, delta: float, low: float, high: float, target: float) -> State:
    drawn = batch["old_entropy"][batch.mask]
    drawn = drawn[~drawn.isnan()]
    entropy = float(drawn.double().mean()) if drawn.numel() else 0.0
    return controlled(state, entropy, delta=delta, low=low, high=high, target=target)


@hooks(init=_start, on_step_end=_control)
@needs("entropy", "old_entropy")
def adaptive_bonus(
    batch: Batch, state: State, *, start: float, delta: float, low: float, high: float, target: float
) -> Tensor:
    """-c g H_it: [N, T]. Source: arXiv:2505.22312."""
    used: float = state["coefficient"] * state["gate"]
    return -used * batch["entropy"] if used else torch.zeros_like(batch.logp)


@recipe(
    title="Skywork Open Reasoner 1 Technical Report",
    paper="arXiv:2505.22312",
    idea="an entropy bonus whose coefficient follows the entropy",
    confidence="exact",
)
def skywork_or1(
    *,
    target: Annotated[float, "[0, inf)"] = 0.2,
    delta: Annotated[float, "[0, inf)"] = 1e-4,
    start: Annotated[float, "[0, inf)"] = 0.0,
    low: Annotated[float, "[0, inf)"] = 0.0,
    high: Annotated[float, "[0, inf)"] = 0.005,
    drop_zero_variance_groups: bool = True,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    if not low <= start <= high:
        raise MethodError(f"'skywork-or1': start={start:g} must lie within low={low:g} and high={high:g}")
    bonus = use(adaptive_bonus, start=start, delta=delta, low=low, high=high, target=target)
    return Method(
        filter=(use(filter.mixed_rewards),) if drop_zero_variance_groups else (),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        regularizer=(bonus,),
        aggregation=use(aggregation.token_mean),
    )
