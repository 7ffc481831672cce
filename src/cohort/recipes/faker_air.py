"""FAKER-Air: Real-Time Long Horizon Air Quality Forecasting via Group-Relative Policy Optimization. arXiv:2511.22169.

Code kaist-cvml/FAKER-Air. Confidence: exact; the order of tied rewards in the rank is ours (by index).

    R      = r + lambda_rec (recall - recall_floor) - lambda_far max(0, far - far_target)
    A      = (1 - c) 2 (k / max(1, G - 1) - 1/2) + c (R - m) / (s + 1e-6)          k = 0 .. G - 1: the rank of R in its group
    m      <- (1 - a) m + a mean R,   s^2 <- (1 - a) s^2 + a (mean R - m)^2        from 0 and 1e-6
    loss   = mean of -A logp + beta KL                                             no ratio, no clip
    w      <- clip(w exp(kp e + ki I)),   I <- decay I + e                         w = beta, lambda_rec, lambda_far

e is the moving average of the step's KL above target_kl, of recall below its floor, of far above its target; beta moves before
the loss takes it, the lambdas after the update, by the first rollout of each group. m, s and the KL's average begin anew every
epoch_steps steps. `recall` and `far` name rewards of the run (weight 0); without them R = r. Of forecasts, r is `class_reward`
(signals/forecast.py) and KL the Gaussians' own (field `kl`); of text KL is k3, a token's mean. Equal rewards still have ranks.
With `unit`, rollouts grow: at most unit min(t_max, base + floor(epoch / every) increment) tokens. target_kl=None keeps beta.

Defaults: the paper's.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import surrogate
from cohort.axes.steering import constrained, controlled_kl, rank_and_average, within_horizon
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.controller import Gains


@recipe(
    title="Real-Time Long Horizon Air Quality Forecasting via Group-Relative Policy Optimization",
    paper="arXiv:2511.22169",
    idea="ranks and a moving average for advantages; recall, false alarms and KL held by controllers; a growing horizon",
    confidence="exact",
)
def faker_air(
    *,
    recall: str | None = None,
    far: str | None = None,
    recall_floor: Annotated[float, "[0, 1]"] = 0.6,
    far_target: Annotated[float, "[0, 1]"] = 0.18,
    lambda_init: Annotated[float, "[0, inf)"] = 0.2,
    lambda_max: Annotated[float, "[0, inf)"] = 3.0,
    adv_ema_coeff: Annotated[float, "[0, 1]"] = 0.1,
    reward_ema_alpha: Annotated[float, "[0, 1]"] = 0.05,
    beta: Annotated[float, "[0, inf)"] = 5e-4,
    beta_min: Annotated[float, "[0, inf)"] = 1e-6,
    beta_max: Annotated[float, "[0, inf)"] = 1e-2,
    target_kl: Annotated[float | None, "[0, inf)"] = 10.0,
    kp: Annotated[float, "[0, inf)"] = 0.05,
    ki: Annotated[float, "[0, inf)"] = 0.01,
    decay: Annotated[float, "[0, 1]"] = 0.95,
    ema_alpha: Annotated[float, "(0, 1]"] = 0.05,
    epoch_steps: Annotated[int | None, "[1, inf)"] = None,
    unit: Annotated[int | None, "[1, inf)"] = None,
    base: Annotated[int, "[1, inf)"] = 3,
    increment: Annotated[int, "[0, inf)"] = 1,
    every: Annotated[int, "[1, inf)"] = 1,
    t_max: Annotated[int, "[1, inf)"] = 12,
) -> Method:
    gains = Gains(kp, ki, decay, ema_alpha)
    limits = {
        "recall_floor": recall_floor,
        "far_target": far_target,
        "lambda_init": lambda_init,
        "lambda_max": lambda_max,
    }
    growth = {"unit": unit, "base": base, "increment": increment, "every": every, "t_max": t_max}
    kl = {"beta": beta, "beta_min": beta_min, "beta_max": beta_max, "target_kl": target_kl}
    average = {"coef": adv_ema_coeff, "ema_alpha": reward_ema_alpha, "epoch_steps": epoch_steps}
    return Method(
        guidance=use(within_horizon, **growth, epoch_steps=epoch_steps),
        shaping=(use(constrained, recall=recall, far=far, gains=gains, **limits),),
        advantage=use(rank_and_average, **average),
        surrogate=use(surrogate.reinforce),
        regularizer=(use(controlled_kl, gains=gains, epoch_steps=epoch_steps, **kl),),
    )
