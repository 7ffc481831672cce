"""Curriculum axis: kinds of tasks in one data set, of which those that go badly come more often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.axes.curriculum import in_epochs
from cohort.signals.asked import QUESTION, SOLVED, questions_of
from cohort.signals.components import component
from cohort.types import Batch, StepInfo
from cohort.types.declare import State, hooks, needs


def task_weights(stats: Tensor, *, prior: float = 0.35, prior_count: float = 2.0, least: float = 0.05) -> Tensor:
    """w_k [K] of (n_k, S_k) [K, 2]."""
    count, total = stats.unbind(-1)
    return torch.where(count > 0, 1 - (total + prior * prior_count) / (count + prior_count), 1 - prior).clamp(min=least)


def counted(stats: Tensor, kind: int, accuracy: float, times: float, target: float | None) -> Tensor:
    """(n, S) [K, 2] after a question of a kind that was asked `times`; its accuracy is measured by the target, if any."""
    reached = min(max(accuracy / target if target else accuracy, 0.0), 1.0)
    new = stats.clone()
    new[kind] += torch.tensor([times, times * reached], dtype=stats.dtype)
    return new


def _start(size: int, rows: Sequence[Mapping[str, Any]]) -> State:
    """Rows without a room belong to one; rows of which nothing is known are of one kind."""
    rows = [*rows, *[{}] * (size - len(rows))]
    kinds = sorted({str(row.get("task")) for row in rows})
    places = {room: i for i, room in enumerate(dict.fromkeys(str(row.get("room")) for row in rows))}
    return {
        "kinds": kinds,
        "kind": torch.tensor([kinds.index(str(row.get("task"))) for row in rows]),
        "room": torch.tensor([places[str(row.get("room"))] for row in rows]),
        "stats": torch.zeros(len(kinds), 2, dtype=torch.float64),
        "order": torch.empty(0, dtype=torch.int64),
        "position": 0,
        "epoch": 0,
    }


def _learn(batch: Batch, state: State, *, targets: Mapping[str, float], info: StepInfo) -> State:
    """Every answered question is counted as often as it was asked: in one episode each time, or as the prompt."""
    question = questions_of(batch, info)
    posed = QUESTION in info.reward_names
    solved = component(batch, SOLVED, info) if posed else batch["accuracy"]
    answered: dict[tuple[int, int], list[tuple[float, int]]] = {}
    episodes = batch.episode.tolist() if posed else [0] * batch.size
    for row, asked, right, episode in zip(
        batch["row"].tolist(), question.tolist(), solved.tolist(), episodes, strict=True
    ):
        if row >= 0 and (asked or not posed):
            answered.setdefault((row, asked), []).append((right, episode))
    stats = state["stats"]
    for (row, _), found in answered.items():
        kind = int(state["kind"][row])
        mean = sum(right for right, _ in found) / len(found)
        times = len({episode for _, episode in found})
        stats = counted(stats, kind, mean, times, targets.get(state["kinds"][kind]))
    return {**state, "stats": stats}


@needs("reward_components")
@hooks(init=_start, on_rollouts=_learn)
def weakest_kinds(
    state: State,
    *,
    count: int,
    rng: torch.Generator,
    prior: float,
    prior_count: float,
    least: float,
    targets: Mapping[str, float],
) -> tuple[Tensor, State]:
    """Rooms in turn, and of each a kind of question by its weight. Source: arXiv:2604.14144."""
    rooms, state = in_epochs(state, torch.arange(int(state["room"].max()) + 1), count=count, rng=rng)
    weight = task_weights(state["stats"], prior=prior, prior_count=prior_count, least=least)
    rows = []
    for room in rooms.tolist():
        there = (state["room"] == room).nonzero()[:, 0]
        kinds = state["kind"][there]
        # A kind that several rows have is not drawn more often for that.
        share = weight[kinds] / torch.bincount(kinds, minlength=len(weight))[kinds]
        rows.append(there[torch.multinomial(share, 1, generator=rng)])
    return torch.cat(rows), state
