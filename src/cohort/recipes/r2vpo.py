"""R2VPO: Ratio-Variance Regularized Policy Optimization for Efficient LLM Fine-tuning. arXiv:2601.03320.

Extended version arXiv:2605.26784. Confidence: reconstructed: form of the dual step, which average it takes, what is
replayed, all values. Known: the constraint on the ratio's variance, its penalty, the dual variable, reuse of old data.

    maximise E[rho A]  subject to  E[(rho - 1)^2] <= delta,   rho = exp(clip(logp - old_logp, -20, 20))
    loss   = mean of -rho A + lambda (rho - 1)^2          gradient: that of rho with A - 2 lambda (rho - 1) for A
    lambda = max(0, lambda + dual_lr (v - delta)),  v = mean of (rho - 1)^2

No ratio is clipped: a token that moved far is braked smoothly, and pushed back where rho > 1 + A / (2 lambda). So stale
data stay of use: with `replay` the rollouts of that many earlier steps are trained on together with the fresh ones, each
against the policy that drew it and with the advantages it had in its group.

lambda moves once a step, with v over the step's minibatches as they were trained on (replayed rollouts are scored once
more for it, after the update). On-policy v is 0, so lambda falls: the penalty is for several updates a batch, or replay.

Defaults: the specification's (the paper's were not recorded; a re-implementation fixes lambda at 0.04).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import ratio
from cohort.axes.aggregation import BY_NAME
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, Rollout, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import State, hooks
from cohort.types.replay import Replay, completions, concat, joined, pack_step


def ratio_variance(batch: Batch, *, aggregation: str, info: StepInfo) -> float:
    """v = mean of (rho - 1)^2, the mean being that of the loss."""
    moved = ratio.token_bounded(batch).detach() - 1
    return float((use(BY_NAME[aggregation])(batch, info=info) * moved**2).sum())


def dual_step(multiplier: float, variance: float, *, delta: float, dual_lr: float) -> float:
    """max(0, lambda + dual_lr (v - delta))."""
    return max(0.0, multiplier + dual_lr * (variance - delta))


def _start(lambda_init: float) -> State:
    return {"lambda": float(lambda_init), "kept": []}


def _replayed(state: State) -> Replay | None:
    """with `replay`, rollouts of earlier steps join the update and are scored once more after it"""
    return joined(state["kept"]) if state["kept"] else None


def _settle(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    access: ModelAccess,
    *,
    delta: float,
    dual_lr: float,
    aggregation: str,
    replay: int,
    info: StepInfo,
) -> State:
    trained = [batch if "old_logp" in batch else batch.replace(old_logp=batch.logp)]
    replayed = _replayed(state)
    if replayed is not None:
        logp = access.log_probs(replayed.contexts, completions(replayed.batch), support=replayed.support)["logp"]
        old = replayed.batch.to(batch.device)
        width = old.mask.shape[1] - logp.shape[1]
        trained.append(old.replace(logp=torch.nn.functional.pad(logp, [0, width])))
    variance = ratio_variance(concat(trained), aggregation=aggregation, info=info)
    kept = [*state["kept"], pack_step(batch, rollouts)][-replay:] if replay else []
    return {"lambda": dual_step(state["lambda"], variance, delta=delta, dual_lr=dual_lr), "kept": kept}


@hooks(init=_start, replay=_replayed, on_step_end=_settle)
def variance_penalty(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    state: State,
    *,
    lambda_init: float = 0.5,
    delta: float = 0.02,
    dual_lr: float = 0.1,
    aggregation: str = "seq",
    replay: int = 0,
) -> Tensor:
    """l_it = -rho A + lambda (rho - 1)^2: [N, T]. Source: arXiv:2601.03320."""
    multiplier: float = state["lambda"]
    return -ratio * advantages + multiplier * (ratio - 1) ** 2


@recipe(
    title="Ratio-Variance Regularized Policy Optimization for Efficient LLM Fine-tuning",
    paper="arXiv:2601.03320",
    idea="a constraint on the variance of the ratio, with a dual variable, in place of clipping",
    confidence="reconstructed: dual step and its average, composition of the replay, all values",
)
def r2vpo(
    *,
    lambda_init: Annotated[float, "[0, inf)"] = 0.5,
    delta: Annotated[float, "[0, inf)"] = 0.02,
    dual_lr: Annotated[float, "[0, inf)"] = 0.1,
    aggregation: Annotated[str, tuple(BY_NAME)] = "seq",
    replay: Annotated[int, "[0, inf)"] = 0,
) -> Method:
    dual = {"lambda_init": lambda_init, "delta": delta, "dual_lr": dual_lr}
    return Method(
        ratio=use(ratio.token_bounded),
        surrogate=use(variance_penalty, aggregation=aggregation, replay=replay, **dual),
        aggregation=use(BY_NAME[aggregation]),
    )
