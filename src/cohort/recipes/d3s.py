"""D3S: Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization.

arXiv:2509.22115. Confidence: reconstructed. Known: rollouts of the largest variance of the advantages, tokens of the
largest |A| H, a schedule that relaxes both. Inferred: the denominator, rounding and ties, the ranking of tokens over all
selected rollouts, the values of the schedule.

    S    = argmax over subsets of N_s rollouts of Var(A_S): the u largest and N_s - u smallest A, for the best u
    kept = the ceil(K n) of the n tokens of S with the largest |A_it| H_it
    loss = mean over the kept tokens of -min(rho A, clip(rho) A)                        denominator="selected"
           (1 / N_s) sum over S of (1 / L_i) sum over its kept tokens                   "sequence"
    [N_s, K] = (1 - p) [init] + p [final],  p = progress of the run from 0 to 1

Advantages are taken in the full groups, and not normalised again. The search is over the whole batch, or in every group
(N_s is then for each). Equal variances take the larger u, equal values the earlier. H is the sampling policy's entropy,
which is the current one at the first update.

Defaults: half of the rollouts at first and all in the end, 20 % and 80 % of their tokens (the paper's were not recorded;
fewer than 20 % of all tokens at the start).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_table, token_mean, top_tokens
from cohort.types import Batch, Groups, StepInfo
from cohort.types.declare import declare, hooks, needs


def extremes(values: Tensor, groups: Groups, size: int) -> Tensor:
    """[N] bool: the `size` values of each group (all of a smaller one) that have the largest variance."""
    rows, there = group_table(groups)
    x = torch.where(there, values[rows].double(), 0.0)
    x = torch.where(there, x - x.sum(1, keepdim=True) / there.sum(1, keepdim=True), 0.0)
    size_of = there.sum(1, keepdim=True).clamp(max=size)
    # Of each end, ties by the order of the batch: places in the order, and sums over the first 0, 1, ... of it.
    place, sums = [], []
    for sign in (-1, 1):
        order = torch.where(there, sign * x, torch.inf).argsort(dim=1, stable=True)
        place.append(order.argsort(1))
        ordered = x.gather(1, order)
        sums.append([torch.nn.functional.pad((ordered**k).cumsum(1), (1, 0)) for k in (1, 2)])
    top = torch.arange(x.shape[1] + 1, device=x.device).expand(len(x), -1)
    bottom = (size_of - top).clamp(min=0)
    first, second = (high + low.gather(1, bottom) for high, low in zip(*sums, strict=True))
    variance = second / size_of - (first / size_of) ** 2
    variance = variance.masked_fill(top > size_of, -torch.inf)
    best = variance.amax(1, keepdim=True)
    taken = torch.where(variance >= best - 1e-12 * best.clamp(min=1), top, -1).amax(1, keepdim=True)
    chosen = (place[0] < taken) | (place[1] < size_of - taken)
    return torch.zeros_like(values, dtype=torch.bool).index_put((rows[there],), chosen[there])


def scheduled(progress: float, init: float, final: float) -> float:
    """(1 - p) init + p final, p kept within 0 and 1."""
    p = min(max(progress, 0.0), 1.0)
    return (1 - p) * init + p * final


def down_sample(
    batch: Batch,
    *,
    cross_group: bool = True,
    num_rollouts_init: int | None = None,
    num_rollouts_final: int | None = None,
    token_fraction_init: float = 0.2,
    token_fraction_final: float = 0.8,
    info: StepInfo,
) -> Batch:
    """The batch with `selected` [N], and its `loss_mask` narrowed to the kept tokens of these rollouts."""
    progress = info.step / max(1, info.steps - 1)
    groups = batch.groups
    if cross_group:
        groups = Groups(torch.zeros_like(groups.index), groups.labels[:1])
    most = int(torch.bincount(groups.index).max()) if batch.size else 0
    count = round(scheduled(progress, num_rollouts_init or -(-most // 2), num_rollouts_final or most))
    outcome = batch.get("outcome_advantage")
    selected = extremes(token_mean(batch.advantages, batch.mask) if outcome is None else outcome, groups, count)
    weight = batch.advantages.abs() * batch["old_entropy"]
    share = scheduled(progress, token_fraction_init, token_fraction_final)
    kept = top_tokens(weight.reshape(1, -1), (batch.loss_mask & selected[:, None]).reshape(1, -1), share)
    return batch.replace(loss_mask=kept.reshape(batch.mask.shape)).with_rollouts(selected=selected)


@needs("old_entropy", "selected")
@hooks(on_advantages=down_sample)
@declare(after_advantage=True, provides=("selected",))
def selected_rollouts(batch: Batch) -> Tensor:
    """Keep the rollouts with the largest variance of the advantages: [N] bool. Source: arXiv:2509.22115."""
    return batch["selected"]


def kept_over_length(batch: Batch) -> Tensor:
    """w_it = kept_it / (N L_i): [N, T]."""
    return batch.loss_mask.to(batch.dtype) / batch.mask.sum(1, keepdim=True).clamp(min=1) / batch.size


@recipe(
    title="Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization",
    paper="arXiv:2509.22115",
    idea="train on the most different advantages, and of these on the tokens of largest |A| H",
    confidence="reconstructed: denominator, rounding, ties, global ranking of tokens, values of the schedule",
)
def d3s(
    *,
    cross_group: Annotated[bool, (False, True)] = True,
    num_rollouts_init: Annotated[int | None, "[1, inf)"] = None,
    num_rollouts_final: Annotated[int | None, "[1, inf)"] = None,
    token_fraction_init: Annotated[float, "(0, 1]"] = 0.2,
    token_fraction_final: Annotated[float, "(0, 1]"] = 0.8,
    denominator: Annotated[str, ("selected", "sequence")] = "selected",
) -> Method:
    rollouts = {"num_rollouts_init": num_rollouts_init, "num_rollouts_final": num_rollouts_final}
    tokens = {"token_fraction_init": token_fraction_init, "token_fraction_final": token_fraction_final}
    return Method(
        filter=(use(selected_rollouts, cross_group=cross_group, **rollouts, **tokens),),
        aggregation=use(aggregation.token_mean if denominator == "selected" else kept_over_length),
    )
