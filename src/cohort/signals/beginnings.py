"""Beginnings of completions, line by line."""

from __future__ import annotations

import torch
from torch import Tensor


def beginnings(completion: str) -> list[str]:
    """The first 1, 2, ... L lines of a completion, each with its newline."""
    lines = [line + "\n" for line in completion.rstrip().split("\n")]
    return ["".join(lines[: j + 1]) for j in range(len(lines))]


def beginning_weights(count: int, alpha: float) -> Tensor:
    """alpha^j / sum_m alpha^m [count]."""
    weights = alpha ** torch.arange(count, dtype=torch.float64)
    return weights / weights.sum()
