"""Information-Consistent Language Model Recommendations through Group Relative Policy Optimization. arXiv:2512.12858.

Confidence: reconstructed. Known: groups are prompts that mean the same, each from a fresh context; a helpfulness reward by
entropy, and a stability reward. Inferred: every formula.

A group is the answers to one request, which is phrased in several ways (other words, another persona), and not to one prompt:

    H_i = what answer i tells, the reward `information` of the run: the entropy of its words in bits, by default
    h_i = H_i / max_g H             s_i = 1 - |H_i - mean_g H| / max_g H             0 where max_g H is 0
    r_i = w_help h_i + w_stable s_i,   in place of the run's rewards
    A_i = (r_i - mean_g r) / (std_g r + eps)

s alone is largest for empty answers, which all tell the same; h alone for the longest. With w_stable above w_help the best
answer tells as much as the group's mean. Equal entropy is not equal content: another reward can be named in its place.

`column` says which request a row of the data phrases. A step takes whole requests, as many as fit into prompts_per_step rows
(of one with more phrasings as many as that); their group_size answers are shared out over the phrasings, at least one each:
with as many phrasings as group_size, one answer each as in the paper.

Defaults: w_help 0.5, w_stable 1 and kl_beta 0.04 are the specification's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes import regularizer
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_max, group_mean
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess, Pool
from cohort.types.declare import State, declare, hooks


def numbered(requests: Sequence[Any]) -> Tensor:
    """[n] int64 which request each is of, numbered in order of first appearance."""
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(str(request), len(known)) for request in requests], dtype=torch.int64)


def by_request(size: int, rows: Sequence[Mapping[str, Any]] = (), *, column: str) -> State:
    """init hook of `whole_requests`."""
    request = numbered([row.get(column) for row in rows]) if rows else torch.arange(size)
    if rows and request.unique().numel() == request.numel():
        raise MethodError(
            f"'info-consistency': no request is phrased twice: the column '{column}' differs in every row. Rows that ask the "
            "same in other words must have the same value there"
        )
    return {"request": request, "order": torch.empty(0, dtype=torch.int64), "position": 0, "epoch": 0}


@hooks(init=by_request)
@declare(columns=("column",))
def whole_requests(state: State, *, count: int, rng: torch.Generator, column: str) -> tuple[Tensor, State]:
    """All phrasings of some requests, `count` of one that has more: rows [n], n <= count. Every request once an epoch.

    Source: arXiv:2512.12858.
    """
    request, order, position, epoch = (state[key] for key in ("request", "order", "position", "epoch"))
    taken: list[Tensor] = []
    while True:
        if position == order.numel():
            order, position, epoch = torch.randperm(int(request.max()) + 1, generator=rng), 0, epoch + 1
        phrased = (request == order[position]).nonzero()[:, 0]
        if len(phrased) > count:
            phrased = phrased[torch.randperm(len(phrased), generator=rng)[:count]]
        if taken and sum(map(len, taken)) + len(phrased) > count:
            return torch.cat(taken), {**state, "order": order, "position": position, "epoch": epoch}
        taken, position = [*taken, phrased], position + 1


@declare(columns=("column",))
def shared_out(rows: Tensor, *, group_size: int, pool: Pool, column: str) -> Tensor:
    """How many of its request's group_size answers each of the phrasings `rows` [n] gets, at least 1: [n]."""
    request = numbered([pool.prompts[row].row.get(column) for row in rows.tolist()])
    phrasings = torch.bincount(request)[request]
    before = (request[:, None] == request) & (torch.arange(len(rows)) < torch.arange(len(rows))[:, None])
    return (group_size // phrasings + (before.sum(1) < group_size % phrasings)).clamp(min=1)


def grouped_by_request(batch: Batch, access: ModelAccess, *, column: str) -> Batch:
    """on_scored hook: the answers to all phrasings of a request are one group."""
    return batch.with_rollouts(group=numbered(access.column(column)).to(batch.device))


def consistency(information: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """h and s of what each answer tells [N], in the batch's groups: [N] each."""
    groups = batch.groups
    most = group_max(information, groups)[groups.index]
    apart = (information - group_mean(information, groups)[groups.index]).abs()
    nothing, over = most <= 0, torch.where(most > 0, most, torch.ones_like(most))
    return (information / over).masked_fill(nothing, 0.0), (1 - apart / over).masked_fill(nothing, 0.0)


@hooks(on_scored=grouped_by_request)
@declare(group_size=2, columns=("column",), components=("information",))
def equally_informative(
    batch: Batch, *, information: str, column: str, w_help: float, w_stable: float, info: StepInfo
) -> Tensor:
    """r_i = w_help h_i + w_stable s_i: [N]. Source: arXiv:2512.12858."""
    helpful, stable = consistency(component(batch, information, info), batch)
    return w_help * helpful + w_stable * stable


@recipe(
    title="Information-Consistent Language Model Recommendations through Group Relative Policy Optimization",
    paper="arXiv:2512.12858",
    idea="the answers to one request, phrased in several ways, should tell equally much",
    confidence="reconstructed: every formula (entropy of words, its scaling, the weights)",
    rewards=("word-entropy",),
)
def info_consistency(
    *,
    column: str = "request",
    information: str = "word-entropy",
    w_help: Annotated[float, "[0, inf)"] = 0.5,
    w_stable: Annotated[float, "[0, inf)"] = 1.0,
    kl_beta: Annotated[float, "[0, inf)"] = 0.04,
) -> Method:
    shape = use(equally_informative, information=information, column=column, w_help=w_help, w_stable=w_stable)
    return Method(
        curriculum=use(whole_requests, column=column),
        budget=use(shared_out, column=column),
        shaping=(shape,),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
    )
