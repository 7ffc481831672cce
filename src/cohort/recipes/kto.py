"""KTO: Model Alignment as Prospect Theoretic Optimization. arXiv:2402.01306; in rounds, CONSCIENTIA's: arXiv:2604.09746.

Code ContextualAI/HALOs, TRL. Confidence: exact for the loss; reconstructed for CONSCIENTIA's loop: labels, schedule of the
opponents, choice of the reference.

    r_i  = sum_t (logp_it - ref_logp_it)
    z0   = max(0, mean over mismatched completions of sum_t (logp - ref_logp))                        no gradient
    l_i  = w_D (1 - sigmoid(beta (r_i - z0)))   desirable        w_U (1 - sigmoid(beta (z0 - r_i)))   undesirable
    loss = mean_i l_i

A completion is desirable if its reward reaches `threshold`, or lies above its group's mean (threshold=None); those of a
file (`--pairs`) say it themselves. A mismatched completion is one of the next prompt in the batch; with a single prompt
z0 = 0. It is the minibatch's, from passes of the policy as it was when the step began. Two players in rounds are runs of
this loss on `episode_labels`, each from the policy of the last round, which is its reference (`rounds`).

Defaults: beta 0.1, both weights 1. The paper wants w_D n_D / (w_U n_U) in [1, 4/3]: `balance` chooses the weights so.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.advantage import centred
from cohort.axes.objective import sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.mismatch import score_mismatched
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks, needs


def desirable(batch: Batch, *, threshold: float | None) -> Tensor:
    """[N] bool: the reward reaches the threshold, or lies above the group's mean if there is none."""
    return centred(batch) > 0 if threshold is None else batch.rewards >= threshold


def reference_point(mismatched_log_ratio: Tensor) -> Tensor:
    """z0 = max(0, mean of [N] log-ratios of mismatched completions), without gradient: scalar."""
    return mismatched_log_ratio.detach().mean().clamp(min=0)


def class_weights(desirable: int, undesirable: int, *, target: float) -> tuple[float, float]:
    """(w_D, w_U) with w_D n_D = target w_U n_U, the larger class at 1; both 1 if a class is missing."""
    if not desirable or not undesirable:
        return 1.0, 1.0
    if desirable < undesirable:
        return target * undesirable / desirable, 1.0
    return 1.0, desirable / (target * undesirable)


def episode_labels(reached: Tensor, exposure: Tensor, *, limit: float) -> tuple[Tensor, Tensor]:
    """(blue, red) [E] bool: desirable for blue if it arrived with exposure up to the limit, for red if that is exceeded."""
    return reached.bool() & (exposure <= limit), exposure > limit


def rounds(count: int, *, reference: str = "previous") -> list[dict[str, int]]:
    """Of each round, the rounds whose policies the players meet and stay close to; 0 is the initial one."""
    out = []
    for k in range(1, count + 1):
        of = {"opponent": k - 1, "reference": k - 1 if reference == "previous" else 0}
        out.append({"iteration": k, **{f"{side}_{what}": n for side in ("blue", "red") for what, n in of.items()}})
    return out


def _none_seen() -> State:
    return {"desirable": 0, "undesirable": 0}


def _count(batch: Batch, state: State, *, threshold: float | None) -> State:
    good = int(desirable(batch, threshold=threshold).sum())
    return {"desirable": state["desirable"] + good, "undesirable": state["undesirable"] + batch.size - good}


@needs("ref_logp", "mismatched_log_ratio")
@hooks(init=_none_seen, on_rollouts=_count, on_scored=score_mismatched)
@declare(couples=True, offline=True, provides=("mismatched_log_ratio",))
def prospect(
    batch: Batch,
    state: State,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    threshold: float | None,
    balance: float | None,
) -> Tensor:
    """mean_i w_i (1 - sigmoid(+-beta (r_i - z0))), r_i = sum_t (logp - ref), plus for desirable completions: scalar.

    Args:
        threshold: reward from which a completion is desirable; None: above its group's mean.
        balance: the ratio w_D n_D / (w_U n_U) that the weights are chosen for, from what the run has seen so far; None
            takes the weights as they are.

    Source: arXiv:2402.01306 eq. 8.
    """
    good = desirable(batch, threshold=threshold)
    if balance is not None:
        desirable_weight, undesirable_weight = class_weights(state["desirable"], state["undesirable"], target=balance)
    gain = beta * (sequence_log_ratio(batch) - reference_point(batch["mismatched_log_ratio"]))
    value = torch.where(good, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))
    return value.mean()


@recipe(
    title="KTO: Model Alignment as Prospect Theoretic Optimization",
    paper="arXiv:2402.01306, arXiv:2604.09746",
    idea="learn from thumbs up or down on single completions, with a loss that saturates both ways",
    confidence="reconstructed: the loop of rounds (labels, schedule, reference); the loss is exact",
)
def kto(
    *,
    beta: Annotated[float, "(0, inf)"] = 0.1,
    desirable_weight: Annotated[float, "[0, inf)"] = 1.0,
    undesirable_weight: Annotated[float, "[0, inf)"] = 1.0,
    threshold: Annotated[float | None, "(-inf, inf)"] = 0.5,
    balance: Annotated[float | None, "(0, inf)"] = None,
) -> Method:
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    return Method(objective=use(prospect, beta=beta, threshold=threshold, balance=balance, **weights))
