"""Batches of vectors whose inputs are chosen and rejected completions rather than rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.types import Batch
from tests.golden.runner import tensor


def stacked(inputs: dict[str, Any], prefixes: Sequence[str]) -> tuple[Batch, dict[str, Tensor]]:
    """Rollouts of `{prefix}mask`, `{prefix}logp`, `{prefix}ref_logp`, one prefix after the other, and every logp as a
    leaf of its own."""
    masks = [tensor(inputs[f"{prefix}mask"]).bool() for prefix in prefixes]
    width = max(mask.shape[1] for mask in masks)

    def wide(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])

    leaves = {f"{prefix}logp": tensor(inputs[f"{prefix}logp"]).requires_grad_() for prefix in prefixes}
    tokens = {"logp": wide(list(leaves.values()))}
    if f"{prefixes[0]}ref_logp" in inputs:
        tokens["ref_logp"] = wide([tensor(inputs[f"{prefix}ref_logp"]) for prefix in prefixes])
    return Batch(mask=wide(masks), tokens=tokens), leaves


def paired(inputs: dict[str, Any]) -> tuple[Batch, dict[str, Tensor]]:
    """P pairs as 2 P rollouts, the chosen ones first: rewards 1 and 0, a group and a row of the data set for each pair."""
    batch, leaves = stacked(inputs, ("chosen_", "rejected_"))
    pair = torch.arange(batch.size // 2).repeat(2)
    rewards = (torch.arange(batch.size) < batch.size // 2).double()
    return batch.replace(group=pair, rewards=rewards, accuracy=rewards).with_rollouts(row=pair.clone()), leaves
