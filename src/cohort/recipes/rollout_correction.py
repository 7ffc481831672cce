"""Rollout correction: truncated and masked importance sampling between the engine that samples and the policy that trains.

No single paper: truncated importance sampling arXiv:1606.02647, masked (IcePop) arXiv:2510.18855, the proximal policy apart
from the behaviour policy arXiv:2110.00641; settings after TRL, verl and prime-rl. Confidence: exact.

    d_t  = old_logp - sampler_logp                                 trainer against sampler, fixed for the step
    z    = d_t | sum_t d_t | (1/L) sum_t d_t                       level: token, sequence, geometric
    w    = min(max(e^z, low), high)  |  e^z if low <= e^z <= high else 0          mode: truncate, mask
    loss = w -min(rho A, clip(rho) A),  rho = exp(logp - old_logp)                proximal "trainer"
    loss = -min(rho A, clip(rho) A),    rho = exp(logp - sampler_logp)            proximal "sampler", loss "ppo"
    loss = -w A logp,                   d_t = sg(logp) - sampler_logp             proximal "sampler", loss "reinforce"

proximal "sampler" takes no pass for old_logp; with loss "ppo" its ratio holds the correction, and a weight beside it would
count twice. `criteria` reject tokens or rollouts, which then leave the divisor too: each is a mapping of a statistic
(token_, seq_sum_, seq_mean_ or seq_max_ with k1 = d, k2 = d^2 / 2, k3 = e^d - 1 - d) and bounds, as in
{"statistic": "seq_mean_k3", "high": 0.01}; bounds of k1 are bounds of the ratio. `max_staleness` drops the groups of which a
token was drawn by weights that are more versions old.

Defaults: token level, truncated at 2 (verl's; TRL masks sequences beyond 3, IcePop tokens beyond 0.5 to 5). Where the engine
is not exact a run without a correction takes these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cohort.axes import correction, ratio, surrogate
from cohort.axes.filter import fresh_groups
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe


def _checked(criteria: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    for criterion in criteria:
        if not isinstance(criterion, Mapping) or criterion.get("statistic") not in correction.STATISTICS:
            raise MethodError(
                f"'rollout-correction': {criterion!r} is no criterion; write {{'statistic': NAME, 'high': BOUND}}, where NAME "
                f"is one of {', '.join(correction.STATISTICS)}"
            )
        bounds = {key: value for key, value in criterion.items() if key != "statistic" and value is not None}
        if not bounds or not set(bounds) <= {"low", "high"} or not all(value > 0 for value in bounds.values()):
            raise MethodError(f"'rollout-correction': {criterion!r} needs a bound 'low' or 'high', each above 0")
    return tuple(criteria)


@recipe(
    title="Rollout correction (truncated and masked importance sampling)",
    paper="arXiv:1606.02647, arXiv:2510.18855, arXiv:2110.00641",
    idea="token losses are weighted by how much likelier the trainer finds what the sampler drew",
    confidence="exact",
)
def rollout_correction(
    *,
    level: Annotated[str, correction.LEVELS] = "token",
    mode: Annotated[str, correction.MODES] = "truncate",
    low: Annotated[float | None, "(0, inf)"] = None,
    high: Annotated[float | None, "(0, inf)"] = 2.0,
    batch_normalize: bool = False,
    criteria: Sequence[Mapping[str, Any]] = (),
    proximal: Annotated[str, correction.PROXIMAL] = "trainer",
    loss: Annotated[str, ("ppo", "reinforce")] = "ppo",
    max_staleness: Annotated[int | None, "[0, inf)"] = None,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.2,
) -> Method:
    if low is not None and high is not None and low > high:
        raise MethodError(f"'rollout-correction': low={low!r} lies above high={high!r}")
    if loss == "reinforce" and proximal == "trainer":
        raise MethodError("'rollout-correction': loss='reinforce' has no proximal policy; set proximal='sampler'")
    bounds = {"level": level, "mode": mode, "low": low, "high": high, "proximal": proximal}
    weight = correction.normalized_importance_weight if batch_normalize else correction.importance_weight
    # The ratio of the bypass is the correction.
    weighs = proximal == "trainer" or loss == "reinforce"
    rejects = (use(correction.reject, criteria=_checked(criteria), proximal=proximal),) if criteria else ()
    clip = use(surrogate.ppo_clip, low=clip_low, high=clip_high)
    return Method(
        filter=() if max_staleness is None else (use(fresh_groups, max_staleness=max_staleness),),
        correction=((use(weight, **bounds),) if weighs else ()) + rejects,
        ratio=use(
            ratio.none if loss == "reinforce" else ratio.token if proximal == "trainer" else ratio.against_sampler
        ),
        surrogate=use(surrogate.reinforce) if loss == "reinforce" else clip,
    )
