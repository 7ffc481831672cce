"""SPO: Single-stream Policy Optimization. arXiv:2509.13232 (not Segment Policy Optimization, also called SPO).

Code in the verl recipe collection. Confidence: exact.

One rollout a prompt (prompts_per_step of them a step); a Beta distribution follows every prompt's success:

    v(x) = alpha / (alpha + beta)             a_i = r_i - v(x_i),  r in {0, 1}
    A_i  = (a_i - mean) / (std + 1e-8)        over the batch, sample standard deviation; 0 if all are equal
    D(x) = mean |stored logp - logp now| over the tokens of the prompt's last rollout, after the update; 0 at first
    rho  = clip(2^(-D / d_half), rho_min, rho_max),   alpha <- rho alpha + r,   beta <- rho beta + 1 - r
    next prompts with probability ~ sqrt(v (1 - v)) + explore, without replacement

A prompt begins with alpha = beta = 1/2 or, with `offline` naming a data column of scores of earlier rollouts (n of them, S
above 0), with N (S + 1/2) / (n + 1) and N (n - S + 1/2) / (n + 1), N = 1 / (1 - rho_min); the curriculum knows them from the
first visit on. Of a prompt that comes twice in a batch, only the last rollout moves the tracker. Every prompt's last rollout
is kept in the state with its log-probabilities, and is scored again when the prompt comes back.

Defaults: rho in [0.875, 0.96], d_half 0.06, explore 0.05 (official recipe; it clips at 0.2 and 0.28 with token means).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import budget
from cohort.axes.advantage import standardise_batch
from cohort.axes.curriculum import draw_weighted
from cohort.axes.objective import binary
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals import drift as drifts
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs


def initial(scores: Sequence[float], *, rho_min: float = 0.875) -> Tensor:
    """(alpha, beta) of a prompt with these scores of earlier rollouts."""
    wins = sum(score > 0 for score in scores)
    return torch.tensor([wins + 0.5, len(scores) - wins + 0.5], dtype=torch.float64) / (len(scores) + 1) / (1 - rho_min)


def forgetting(drift: Tensor, *, rho_min: float, rho_max: float, d_half: float) -> Tensor:
    """rho = clip(2^(-D / d_half), rho_min, rho_max)."""
    return (2.0 ** (-drift / d_half)).clamp(rho_min, rho_max)


def sampling_weights(counts: Tensor, *, explore: float = 0.05) -> Tensor:
    """sqrt(v (1 - v)) + explore for (alpha, beta) [n, 2]: [n]."""
    return counts.prod(1).sqrt() / counts.sum(1) + explore


def _start(size: int) -> State:
    half = torch.full((size, 2), 0.5, dtype=torch.float64)
    return {"counts": half, "drift": torch.zeros(size, dtype=torch.float64), "stored": {}}


def _counts(batch: Batch, state: State, rollouts: Sequence[Rollout], rho_min: float, offline: str | None) -> Tensor:
    """(alpha, beta) [N, 2] of the prompts; those of the offline scores where a prompt comes for the first time."""
    out: Tensor = state["counts"][batch["row"].cpu()]
    for i, (row, rollout) in enumerate(zip(batch["row"].tolist(), rollouts, strict=True)):
        if offline and str(row) not in state["stored"] and (scores := rollout.prompt.row.get(offline)):
            out[i] = initial(scores, rho_min=rho_min)
    return out


def _baseline(batch: Batch, access: ModelAccess, state: State, *, rho_min: float, offline: str | None) -> Batch:
    """The tracked success rate of each rollout's prompt."""
    counts = _counts(batch, state, access.rollouts, rho_min, offline)
    return batch.with_rollouts(tracked_value=(counts[:, 0] / counts.sum(1)).to(batch.device, batch.dtype))


def _follow(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    access: ModelAccess,
    *,
    rho_min: float,
    rho_max: float,
    d_half: float,
    offline: str | None,
    threshold: float | None,
) -> State:
    won, keys = binary(batch.rewards, threshold, "spo-single-stream").cpu().double(), batch["row"].tolist()
    before, held = _counts(batch, state, rollouts, rho_min, offline), state["stored"]
    counts, drift, stored = state["counts"].clone(), state["drift"].clone(), dict(held)
    again, new = map(iter, drifts.rescored([held[str(key)] for key in keys if str(key) in held], rollouts, access))
    for key, rollout, old, win, logp in zip(keys, rollouts, before, won, new, strict=True):
        last = held.get(str(key))
        drift[key] = 0.0 if last is None else drifts.drift(last, next(again))
        rho = forgetting(drift[key], rho_min=rho_min, rho_max=rho_max, d_half=d_half)
        counts[key] = rho * old + torch.stack([win, 1 - win])
        stored[str(key)] = drifts.stored(rollout, logp)
    return {"counts": counts, "drift": drift, "stored": stored}


@hooks(init=_start, on_scored=_baseline, on_step_end=_follow)
@declare(provides=("tracked_value",))
def prioritised(state: State, *, count: int, rng: torch.Generator, explore: float = 0.05) -> tuple[Tensor, State]:
    """Prompts by how open their outcome is. Source: arXiv:2509.13232."""
    return draw_weighted(sampling_weights(state["counts"], explore=explore), count, rng), state


@needs("tracked_value")
def batch_normalised(batch: Batch, *, eps: float = 1e-8, ddof: int = 1, threshold: float | None = None) -> Tensor:
    """(a - mean) / (std + eps), a = r - v: [N]; 0 if all are equal. Source: arXiv:2509.13232."""
    raw = binary(batch.rewards, threshold, "spo-single-stream").to(batch.dtype) - batch["tracked_value"]
    return standardise_batch(raw, eps=eps, ddof=ddof)


@recipe(
    title="Single-stream Policy Optimization",
    paper="arXiv:2509.13232",
    confidence="exact",
    idea="one rollout a prompt against a running estimate of the prompt's success rate",
)
def spo_single_stream(
    *,
    rho_min: Annotated[float, "[0, 1)"] = 0.875,
    rho_max: Annotated[float, "(0, 1]"] = 0.96,
    d_half: Annotated[float, "(0, inf)"] = 0.06,
    explore: Annotated[float, "[0, inf)"] = 0.05,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-8,
    std_ddof: Annotated[int, (0, 1)] = 1,
    offline: str | None = None,
    threshold: Annotated[float | None, "(-inf, inf)"] = None,
) -> Method:
    if rho_min > rho_max:
        raise MethodError(f"'spo-single-stream': rho_min={rho_min:g} is above rho_max={rho_max:g}")
    track = {"rho_min": rho_min, "rho_max": rho_max, "d_half": d_half, "offline": offline, "threshold": threshold}
    return Method(
        curriculum=use(prioritised, explore=explore, **track),
        budget=use(budget.single),
        advantage=use(batch_normalised, eps=adv_eps, ddof=std_ddof, threshold=threshold),
    )
