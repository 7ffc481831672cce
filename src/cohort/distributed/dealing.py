"""Which rank makes the passes over which rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.policies.agents import AgentActions
from cohort.policies.sequences import Sequences
from cohort.types.policy import Actions


def deal(lengths: Sequence[int], shares: int) -> list[Tensor]:
    """Rows [m] int64 of each share, of about as many tokens: a row goes where its middle falls when all stand in a line.

    Rows keep their order, so that rollouts of one prompt stay together, and with them what they share.

    Args:
        lengths: tokens of each row.
    """
    out: list[list[int]] = [[] for _ in range(shares)]
    counted = [max(1, length) for length in lengths]
    total, before = sum(counted), 0
    for row, length in enumerate(counted):
        out[(2 * before + length) * shares // (2 * total)].append(row)
        before += length
    return [torch.tensor(rows, dtype=torch.int64) for rows in out]


def lengths_of(actions: Actions) -> list[int]:
    """Tokens of each row of actions, with those of its contexts."""
    if isinstance(actions, AgentActions):
        out = torch.zeros(len(actions), dtype=torch.int64)
        for k, part in enumerate(actions.parts):
            out[actions.rows(k)] = torch.tensor(lengths_of(part), dtype=torch.int64)
        return [int(length) for length in out]
    assert isinstance(actions, Sequences)
    return actions.lengths
