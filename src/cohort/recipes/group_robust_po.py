"""Group Robust Preference Optimization in Reward-free RLHF. arXiv:2405.20304. Not Group Relative Policy Optimization.

Code rsshyam/Group-robust-preference-optimization. Confidence: exact.

    h    = (log pi(y_c) - log ref(y_c)) - (log pi(y_r) - log ref(y_r))
    l    = -log sigmoid(beta h)   base="dpo"       (h - 1 / (2 beta))^2   base="ipo"
    L_g  = (N / N_g) sum of l over the batch's pairs of labeller group g       or their mean; 0 if there is none
    a_g <- a_g exp(step_size L_g) / sum            the adversary moves first
    loss = sum_g a_g L_g                           with the new a, constants

The data's `column` says whose labels a row has; N_g is the number of its rows. a is 1/K at the start, or with
`importance_sampling` proportional to 1 / N_g for good. A pair is any two rollouts of a group with different rewards, or a row
of a file of pairs (`--pairs`). With several updates a step, each looks ahead from the weights that the step began with.

Defaults: ipo with beta 0.01, step_size 5e-7, scaled by counts (released script). L_g grows with N / N_g and the number of
pairs, so the step size must be tiny; the script halves it whenever it lowers the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes.objective import logistic, preferred_pairs, sequence_log_ratio
from cohort.devices import tensor_on, to_device
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.strata import add_stratum, count_new_strata, count_strata
from cohort.types import Batch
from cohort.types.declare import State, declare, hooks, needs


def pair_losses(h: Tensor, *, base: str, beta: float) -> Tensor:
    """[K] losses of pairs whose log-ratios differ by h."""
    return logistic(beta * h) if base == "dpo" else (h - 1 / (2 * beta)) ** 2


def group_losses(batch: Batch, state: State, *, base: str, beta: float, scale_by_counts: bool) -> Tensor:
    """L_g: [G], in the order of the state's codes."""
    better, worse = preferred_pairs(batch)
    ratio = sequence_log_ratio(batch)
    loss = pair_losses(ratio[better] - ratio[worse], base=base, beta=beta)
    codes = tensor_on(state["codes"], loss.device, torch.int64)
    counts = tensor_on(state["counts"], loss.device, loss.dtype)
    which = (batch["stratum"][better][:, None] == codes).int().argmax(1)
    total = torch.zeros_like(counts).index_add(0, which, loss)
    if scale_by_counts:
        return counts.sum() / counts * total
    return total / torch.bincount(which, minlength=counts.numel()).clamp(min=1)


def moved(log_weights: Tensor, losses: Tensor, *, step_size: float) -> Tensor:
    """log of a_g exp(step_size L_g) / sum: [G], without gradient."""
    return (log_weights + step_size * losses.detach().to(log_weights)).log_softmax(0)


def _weighted(state: State, importance_sampling: bool) -> State:
    """The state with weights, up to their sum, for the groups that have none yet."""
    known, counts = state["log_weights"], torch.tensor(state["counts"], dtype=torch.float64)
    start = -counts.log() if importance_sampling else torch.zeros_like(counts)
    return {**state, "log_weights": torch.cat([known, start[known.numel() :]])}


def _start(rows: Sequence[Mapping[str, Any]], *, column: str, importance_sampling: bool) -> State:
    none = torch.zeros(0, dtype=torch.float64)
    return _weighted({**count_strata(rows, column=column), "log_weights": none}, importance_sampling)


def _meet(batch: Batch, state: State, *, importance_sampling: bool) -> State:
    return _weighted(count_new_strata(batch, state), importance_sampling)


def _move(
    batch: Batch,
    state: State,
    *,
    base: str,
    beta: float,
    step_size: float,
    scale_by_counts: bool,
    importance_sampling: bool,
) -> State:
    if importance_sampling:
        return {**state, "log_weights": state["log_weights"].log_softmax(0)}
    losses = group_losses(batch, state, base=base, beta=beta, scale_by_counts=scale_by_counts)
    return {**state, "log_weights": moved(state["log_weights"], losses.cpu(), step_size=step_size)}


@needs("ref_logp", "stratum")
@hooks(init=_start, on_scored=add_stratum, on_rollouts=_meet, on_step_end=_move)
@declare(couples=True, group_size=2, offline=True, provides=("stratum",), columns=("column",))
def worst_group(
    batch: Batch,
    state: State,
    *,
    base: str,
    beta: float,
    step_size: float,
    scale_by_counts: bool,
    importance_sampling: bool,
) -> Tensor:
    """sum_g a_g L_g, a_g proportional to a_g exp(step_size L_g) and constant: scalar. Source: arXiv:2405.20304 alg. 1."""
    how: dict[str, Any] = {"base": base, "beta": beta, "scale_by_counts": scale_by_counts}
    losses = group_losses(batch, state, **how)
    after = _move(batch, state, step_size=step_size, importance_sampling=importance_sampling, **how)
    weights = to_device(after["log_weights"].exp().to(losses.dtype), losses.device)
    return (weights * losses).sum()


@recipe(
    title="Group Robust Preference Optimization in Reward-free RLHF",
    paper="arXiv:2405.20304",
    idea="minimise the loss of the labellers who are served worst",
    confidence="exact",
)
def group_robust_po(
    *,
    column: str = "labeller",
    base: Annotated[str, ("dpo", "ipo")] = "ipo",
    beta: Annotated[float, "(0, inf)"] = 0.01,
    step_size: Annotated[float, "[0, inf)"] = 5e-7,
    scale_by_counts: bool = True,
    importance_sampling: bool = False,
) -> Method:
    how = {"base": base, "beta": beta, "scale_by_counts": scale_by_counts, "importance_sampling": importance_sampling}
    return Method(objective=use(worst_group, column=column, step_size=step_size, **how))
