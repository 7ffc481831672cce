"""RiskPO: Risk-based Policy Optimization via Verifiable Reward for LLM Post-Training. arXiv:2510.00911.

Code RTkenny/RiskPO. Confidence: exact, with the tracked quantiles as the paper intends them (the released loop writes
them where its advantage does not see them, and falls back on those of the bundle).

`bundle_size` consecutive questions of the batch make a bundle; exam j is the j-th rollout of each, its score S_j the
sum of their rewards. What counts is the lower part of the distribution of scores:

    V_j = ((S_j - q_lo)^+ - (S_j - q_hi)^+ + [natural_baseline] (q_lo - q_hi)) / (hi - lo + eps)
    C_j = -(q_lo - S_j)^+ / (lo + eps)
    A_j = (omega C_j + V_j) / (omega + 1) / (std S + eps)                   sample std over the bundle's exams
    credit of question k: A_j | A_j / (s_k + eps) | A_j d_k / sum_k d_k     d_k = r_kj - mean_k

q_lo, q_hi are quantiles of S: "tracked" over steps (q_l += quantile_lr (l - share of scores below q_l) at 19 levels;
the first step takes its own), of the "bundle", or the "mix". Rollouts beyond the bundle's smallest group are in no exam
and get 0. Far from tracked quantiles, a bundle of equal scores would get up to 1 / eps, so a std <= min_std means A = 0.
Mind that A is not centred, and that the third credit turns its sign round where A_j > 0 and sum_k d_k < 0.

Defaults: the paper's for hard data; easy data: level_high 0.9, credit "std", natural_baseline. min_std is ours.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.advantage import centred
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_bundles, group_quantile, group_size, group_std, group_sum
from cohort.reductions.quantiles import at_level, track
from cohort.types import Batch, Groups
from cohort.types.declare import State, declare, hooks


def _after_step(batch: Batch, state: State, *, bundle_size: int = 5, quantile_lr: float = 0.1) -> State:
    rows, exam, _ = group_bundles(batch.groups, bundle_size)
    return {"quantiles": track(state["quantiles"], group_sum(batch.rewards[rows], exam), lr=quantile_lr)}


def _quantile(scores: Tensor, bundle: Groups, state: State, level: float, source: str) -> Tensor:
    """[E] quantile of the scores [E] at a level, for each exam."""
    own = group_quantile(scores, bundle, level)[bundle.index]
    if source == "bundle" or not scores.numel():
        return own
    known = state["quantiles"] if state["quantiles"] is not None else track(None, scores, lr=0.0)
    tracked = at_level(known, level).to(own)
    return tracked.expand_as(own) if source == "tracked" else 0.5 * (tracked + own)


@hooks(init=lambda: {"quantiles": None}, on_step_end=_after_step)
@declare(group_size=2)
def mixed_value_at_risk(
    batch: Batch,
    state: State,
    *,
    bundle_size: int = 5,
    level_low: float = 0.2,
    level_high: float = 0.8,
    omega: float = 1.5,
    natural_baseline: bool = False,
    quantiles: str = "tracked",
    min_std: float | None = 1e-3,
    eps: float = 1e-6,
) -> Tensor:
    """A_j of each rollout's exam: [N]. Source: arXiv:2510.00911."""
    rows, exam, bundle = group_bundles(batch.groups, bundle_size)
    scores = group_sum(batch.rewards[rows], exam)
    low, high = (_quantile(scores, bundle, state, level, quantiles) for level in (level_low, level_high))
    middle = (scores - low).clamp(min=0) - (scores - high).clamp(min=0) + natural_baseline * (low - high)
    tail = -(low - scores).clamp(min=0) / (level_low + eps)
    value = (omega * tail + middle / (level_high - level_low + eps)) / (omega + 1)
    single = group_size(bundle, scores.dtype) == 1
    std = torch.where(single, 1.0, group_std(scores, bundle, ddof=1))[bundle.index]
    value = value / (std + eps)
    if min_std is not None:
        value = torch.where(std <= min_std, torch.zeros_like(value), value)
    return torch.zeros_like(batch.rewards).index_copy(0, rows, value[exam.index])


@declare(group_size=2)
def question_credit(
    batch: Batch, advantages: Tensor, *, credit: str = "sum-mean", bundle_size: int = 5, eps: float = 1e-6
) -> Tensor:
    """What of its exam's advantage a question gets, by its spread ("std") or its part of the score ("sum-mean")."""
    if credit == "std":
        spread = group_std(batch.rewards, batch.groups, ddof=1)
        spread = torch.where(spread <= 1e-3, torch.ones_like(spread), spread)
        return advantages / (spread + eps)[batch.groups.index, None]
    rows, exam, _ = group_bundles(batch.groups, bundle_size)
    distance = centred(batch)[rows]
    total, count = group_sum(distance, exam)[exam.index], group_size(exam, distance.dtype)[exam.index]
    tiny = total.abs() <= 1e-6
    part = torch.where(tiny, 1 / count, distance / torch.where(tiny, torch.ones_like(total), total))
    return advantages * torch.zeros_like(batch.rewards).index_copy(0, rows, part)[:, None]


@recipe(
    title="RiskPO: Risk-based Policy Optimization via Verifiable Reward for LLM Post-Training",
    paper="arXiv:2510.00911",
    idea="bundles of questions judged by the lower quantiles of their score",
    confidence="exact",
)
def riskpo(
    *,
    bundle_size: Annotated[int, "[1, inf)"] = 5,
    level_low: Annotated[float, "(0, 1)"] = 0.2,
    level_high: Annotated[float, "(0, 1)"] = 0.8,
    omega: Annotated[float, "[0, inf)"] = 1.5,
    natural_baseline: bool = False,
    credit: Annotated[str, ("uniform", "std", "sum-mean")] = "sum-mean",
    quantiles: Annotated[str, ("tracked", "bundle", "mix")] = "tracked",
    quantile_lr: Annotated[float, "[0, inf)"] = 0.1,
    min_std: Annotated[float | None, "[0, inf)"] = 1e-3,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
) -> Method:
    if level_low >= level_high:
        raise MethodError(f"'riskpo': level_low={level_low:g} must be below level_high={level_high:g}")
    risk = {"level_low": level_low, "level_high": level_high, "omega": omega, "natural_baseline": natural_baseline}
    known = {"quantiles": quantiles, "quantile_lr": quantile_lr, "min_std": min_std}
    split = use(question_credit, credit=credit, bundle_size=bundle_size, eps=adv_eps)
    return Method(
        advantage=use(mixed_value_at_risk, **risk, **known, bundle_size=bundle_size, eps=adv_eps),
        credit=(split,) if credit != "uniform" else (),
    )
