"""DAPO: An Open-Source LLM Reinforcement Learning System at Scale. arXiv:2503.14476. Confidence: exact.

    loss = 1/sum(m) sum_it m_it -min(rho A_i, clip(rho, 1 - 0.2, 1 + 0.28) A_i)        clip-higher, token-level loss
    s.t. 0 < number of correct rollouts of the group < G                               dynamic sampling
    r_i  = r_i + { 0 | ((L_max - L_cache) - n)/L_cache | -1 }                          soft overlong punishment

Prompts whose rollouts are all correct or all wrong are replaced by fresh ones, up to `max_rounds` rounds of sampling a
step (10 in the released scripts, which then stop with an error; here the step trains on what it has). No KL.

Defaults: the paper's. L_max is the generation budget of the run and L_cache a fifth of it, as 4096 of 20480.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import aggregation, shaping, surrogate
from cohort.axes.filter import mixed_accuracy
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    paper="arXiv:2503.14476",
    idea="clip-higher, token-level loss, dynamic sampling, soft overlong punishment",
    confidence="exact",
)
def dapo(
    *,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
    dynamic_sampling: bool = True,
    max_rounds: Annotated[int, "[1, inf)"] = 10,
    overlong: bool = True,
    max_len: Annotated[int | None, "[1, inf)"] = None,
    cache_len: Annotated[int | None, "[1, inf)"] = None,
) -> Method:
    return Method(
        shaping=(use(shaping.soft_overlong, max_len=max_len, cache_len=cache_len),) if overlong else (),
        filter=(use(mixed_accuracy, max_rounds=max_rounds),) if dynamic_sampling else (),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.token_mean),
    )
