"""Settings that rollouts describe for a question, between <description> tags, and how varied the answers in them are."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from cohort.reductions.groups import group_sum
from cohort.types import Batch

_DESCRIBED = re.compile(r"<description>(.*?)</description>", re.DOTALL)
LONGEST = 600  # characters of a setting


def described(text: str) -> str:
    """The setting that a rollout describes, the last if there are several; empty if it describes none."""
    found = [" ".join(each.split()) for each in _DESCRIBED.findall(text)]
    return found[-1][:LONGEST] if found else ""


def diversity(accuracy: Tensor) -> Tensor:
    """D = 4 Var(a) over the last dimension, in [0, 1] for accuracies in [0, 1]."""
    return 4 * accuracy.var(-1, unbiased=False)


def smoothed(before: float | None, new: float, *, keep: float = 0.5) -> float:
    """Dbar after a visit."""
    return new if before is None else keep * before + (1 - keep) * new


def known_or_mean(values: Tensor, batch: Batch) -> Tensor:
    """[N] the values; where they are NaN, the mean of those of the group that are not, 0 if all are."""
    there = ~values.isnan()
    some = torch.where(there, values, torch.zeros_like(values))
    mean = group_sum(some, batch.groups) / group_sum(there.to(values.dtype), batch.groups).clamp(min=1)
    return torch.where(there, values, mean[batch.groups.index])


def key(row: int, setting: str) -> str:
    """What a setting of a prompt is known by."""
    return f"{row}: {setting}"
