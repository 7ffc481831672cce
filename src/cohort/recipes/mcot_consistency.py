"""MCoT consistency: Puzzle Curriculum GRPO for Vision-Centric Reasoning (its Reasoning-Answer Consistency). arXiv:2512.14944.

Confidence: reconstructed. Known: RAC, scored by an open judge of 72B; it rises, then falls, under GRPO, and goes with later
accuracy. Inferred: the binary verdict, smoothing and alarm, the four shares, and the gated reward, a simpler stand-in for
grpo-care, which the paper itself uses.

A judge that does not see the gold answer says whether the reasoning leads to the final answer: v_i in {0, 1}, or nothing where
either is missing or the verdict cannot be read. "Right but inconsistent" is the warning sign, a shortcut:

    R_i = right_i (1 + weight v_i)                     an unknown v counts 0; a wrong answer is never paid for consistency
    RAC_s = mean of the known v_i of step s
    ema <- (1 - ema_alpha) ema + ema_alpha RAC_s       the first value is RAC_0; steps without a verdict change nothing
    alarm after `patience` steps in a row with ema < best - drop;  the step of the best ema is the checkpoint to keep

`consistent` names the reward that says v, the prompt of that name: `--reward 0*judge:consistent@MODEL` (a weight of 0 keeps
it out of the run's sum, which R replaces). With weight 0 the reward is the accuracy, and the monitor alone is left. Metrics:
`rac`, the four shares, `rac/ema`, `rac/best`, `rac/best_step`, `rac/alarm`, and `rac/pearson`, its correlation with accuracy.

Defaults: weight 0.5, ema_alpha 0.3, patience 3, drop 0.02 are the specification's.
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
from cohort.signals.consistency import consistency, pearson, unwatched, watched
from cohort.types import Batch, Rollout, StepInfo
from cohort.types.declare import State, declare, hooks, needs


def verdicts(batch: Batch, name: str, info: StepInfo) -> Tensor:
    """[N] what the reward `name` says; NaN where it does not apply."""
    component(batch, name, info)  # refuses a run without it
    return batch["reward_components"][:, info.reward_names.index(name)]


def _watch(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    info: StepInfo,
    *,
    consistent: str,
    ema_alpha: float,
    patience: int,
    drop: float,
) -> State:
    """An on_rollouts hook: the monitor with this step's verdicts."""
    correct = batch["accuracy"]
    found = consistency(correct, verdicts(batch, consistent, info))
    moved = watched(state, found["rac"], ema_alpha=ema_alpha, patience=patience, drop=drop)
    if math.isnan(found["rac"]) or not correct.numel():
        return moved
    accuracy = float(correct.double().mean())
    return {**moved, "rac": [*state["rac"], found["rac"]], "accuracy": [*state["accuracy"], accuracy]}


@needs("reward_components")
@hooks(init=unwatched, on_rollouts=_watch)
@declare(components=("consistent",))
def consistency_gated(
    batch: Batch,
    *,
    state: State,
    consistent: str = "consistent",
    weight: float = 0.5,
    ema_alpha: float = 0.3,
    patience: int = 3,
    drop: float = 0.02,
    info: StepInfo,
) -> tuple[Tensor, dict[str, float]]:
    """R_i = right_i (1 + weight v_i): [N], in place of the run's rewards; and the monitor. Source: arXiv:2512.14944."""
    verdict = verdicts(batch, consistent, info)
    found = consistency(batch["accuracy"], verdict)
    shares = {f"rac/{name}": value for name, value in found.items() if name != "rac"}
    monitor = {f"rac/{name}": float(state[name]) for name in ("ema", "best", "best_step", "alarm")}
    correlated = {"rac/pearson": pearson(state["rac"], state["accuracy"])}
    rewards = batch["accuracy"] * (1 + weight * torch.nan_to_num(verdict))
    return rewards.to(batch.dtype), {"rac": found["rac"], **shares, **monitor, **correlated}


@recipe(
    title="Puzzle Curriculum GRPO for Vision-Centric Reasoning (Reasoning-Answer Consistency)",
    paper="arXiv:2512.14944",
    idea="right answers that follow from their own reasoning are worth more, and how many do is watched",
    confidence="reconstructed: the binary verdict, smoothing and alarm, the four shares, the gated reward",
    rewards=("math", "0*judge:consistent@policy"),
)
def mcot_consistency(
    *,
    consistent: str = "consistent",
    weight: Annotated[float, "[0, inf)"] = 0.5,
    ema_alpha: Annotated[float, "(0, 1]"] = 0.3,
    patience: Annotated[int, "[1, inf)"] = 3,
    drop: Annotated[float, "[0, inf)"] = 0.02,
) -> Method:
    how = {"weight": weight, "ema_alpha": ema_alpha, "patience": patience, "drop": drop}
    return Method(shaping=(use(consistency_gated, consistent=consistent, **how),))
