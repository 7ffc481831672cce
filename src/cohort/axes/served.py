"""Curriculum axis: a server of new samples beside the data. What was asked for waits, what is finished stands ready.

The state of the server has `pending` and `ready`, lists of items of any kind, oldest first, and `dropped`, how many were thrown
away; the curriculum's items are a row of the data and a setting for its question.

Source: arXiv:2511.19343.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.axes.curriculum import in_epochs
from cohort.signals.settings import described, diversity, key, smoothed
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks

MOST_KNOWN = 10_000  # settings whose diversity is remembered, the latest


def empty() -> State:
    """Nothing was asked for yet."""
    return {"pending": [], "ready": [], "dropped": 0}


def requested(state: State, items: Sequence[Any]) -> State:
    """The items wait behind those that do."""
    return {**state, "pending": [*state["pending"], *items]}


def finished(state: State, count: int, *, capacity: int) -> State:
    """The first `count` of those that wait are ready; of more than `capacity` the oldest are dropped."""
    ready = [*state["ready"], *state["pending"][:count]]
    over = max(0, len(ready) - capacity)
    return {**state, "pending": state["pending"][count:], "ready": ready[over:], "dropped": state["dropped"] + over}


def share_of(state: State, count: int, share: float) -> int:
    """How many of `count` samples come from the server: floor(share count), at most those that are ready."""
    return min(math.floor(share * count + 1e-9), len(state["ready"]))


def taken(state: State, places: Sequence[int]) -> tuple[list[Any], State]:
    """The items at some places of those that are ready, and the state without them."""
    gone = set(places)
    left = [item for i, item in enumerate(state["ready"]) if i not in gone]
    return [state["ready"][i] for i in places], {**state, "ready": left}


def _start(size: int) -> State:
    order = {"order": torch.empty(0, dtype=torch.int64), "position": 0, "epoch": 0}
    return {**empty(), **order, "size": size, "known": {}}


def _of_settings(batch: Batch, access: ModelAccess, state: State) -> Batch:
    """`diversity` [N] of the setting that each rollout describes: as just tried, as known, or NaN."""
    found = []
    for row, rollout in zip(batch["row"].tolist(), access.rollouts, strict=True):
        tried = rollout.fields.get("tried", math.nan)
        known = state["known"].get(key(row, described(rollout.text)))
        found.append(tried if known is None else known)
    return batch.with_rollouts(diversity=torch.tensor(found, dtype=batch.dtype, device=batch.device))


def _serve(batch: Batch, state: State, rollouts: Sequence[Rollout], *, keep: float) -> State:
    """Count the visits of settings, and ask for what was newly described."""
    known: dict[str, float] = dict(state["known"])
    visits: dict[str, list[float]] = {}
    wanted = {key(*item): None for item in (*state["pending"], *state["ready"])}
    new = []
    for row, right, rollout in zip(batch["row"].tolist(), batch["accuracy"].tolist(), rollouts, strict=True):
        if row < 0 or rollout is None:
            continue
        if setting := rollout.request.meta.get("setting"):
            visits.setdefault(key(row, setting), []).append(right)
        own = described(rollout.text)
        tried = rollout.fields.get("tried")
        if isinstance(tried, float):
            known[key(row, own)] = smoothed(known.get(key(row, own)), tried, keep=keep)
        if own and key(row, own) not in wanted:
            wanted[key(row, own)] = None
            new.append([row, own])
    for name, found in visits.items():
        known[name] = smoothed(known.get(name), float(diversity(torch.tensor(found))), keep=keep)
    for name in list(known)[:-MOST_KNOWN]:
        del known[name]
    return {**requested(state, new), "known": known}


@declare(provides=("diversity",))
@hooks(init=_start, on_scored=_of_settings, on_rollouts=_serve)
def from_server(
    state: State, *, count: int, rng: torch.Generator, share: float, capacity: int, keep: float
) -> tuple[Tensor, State, list[Mapping[str, Any]]]:
    """Some prompts with settings of the server, the others as they are. Source: arXiv:2511.19343."""
    state = finished(state, len(state["pending"]), capacity=capacity)
    first: dict[int, int] = {}  # row -> place: a prompt has one setting at a time
    for place, (row, _) in enumerate(state["ready"]):
        first.setdefault(row, place)
    places = sorted(first.values())[: share_of(state, count, share)]
    items, state = taken(state, places)
    others = torch.tensor(
        [row for row in range(state["size"]) if row not in {row for row, _ in items}], dtype=torch.int64
    )
    plain = others[:0]
    while plain.numel() < count - len(items):
        drawn, state = in_epochs(state, torch.arange(state["size"]), count=count - len(items) - plain.numel(), rng=rng)
        plain = torch.cat([plain, drawn[torch.isin(drawn, others)] if others.numel() else drawn])
    notes: list[Mapping[str, Any]] = [{"setting": setting} for _, setting in items]
    notes += [{} for _ in plain]
    return torch.cat([torch.tensor([row for row, _ in items], dtype=torch.int64), plain]), state, notes
