"""One update of a method on a batch, without a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cohort import registry
from cohort.methods import Method
from cohort.types import Batch
from tests.traits import gradients, with_leaves


def update_of(
    method: str | Method, batch: Batch, states: dict[str, Any] | None = None
) -> tuple[Tensor, dict[str, Tensor], Batch]:
    """Loss, its gradient with respect to what the forward pass gives, and the batch it was taken on."""
    made = registry.method(method)
    batch, leaves = with_leaves(made, batch)
    if states is None:
        states = made.bind(made.init(size=int(batch["row"].max()) + 1)).on_rollouts(batch, [])
    ready = made.bind(states).prepare(batch).batch
    loss = made.bind(states).loss(ready).total
    return loss.detach(), gradients(loss, leaves), ready


def pairs_batch(batch: Batch) -> Batch:
    """Rows 2 k and 2 k + 1 as a pair of their own, the first one preferred."""
    pair = torch.arange(batch.size) // 2
    rewards = 1.0 - (torch.arange(batch.size) % 2).to(batch.dtype)
    return batch.replace(group=pair, rewards=rewards, accuracy=rewards).with_rollouts(row=pair.clone())
