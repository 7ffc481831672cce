"""Rows of a decoding step by the context that they have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from cohort.devices import to_device


class Grid(NamedTuple):
    """B rows of M contexts, g of the context that has most.

    Attributes:
        rows: [M, g] the rows of each context, then any.
        order: [B] rows by context; place: [B] where each row stands in it.
        starts: [M + 1] int32 where in it the rows of each context begin.
        by_context: [M K g] where each of `rows` stands among rows and key heads [B K].
        by_row: [B K] the other way round.
    """

    rows: Tensor
    order: Tensor
    place: Tensor
    starts: Tensor
    by_context: Tensor
    by_row: Tensor

    @classmethod
    def of(cls, home: Tensor, contexts: int, heads: int, device: torch.device | str = "cpu") -> Grid:
        """On a device, of the context [B] of each row (in the processor's memory), and K, the number of key heads."""
        order = torch.argsort(home, stable=True)
        size = torch.bincount(home, minlength=contexts)
        starts = pad(size.cumsum(0), (1, 0))
        widest = int(size.max())
        column = torch.arange(widest)
        rows = order[(starts[:-1, None] + column).clamp(max=len(order) - 1)]
        rows = torch.where(column < size[:, None], rows, torch.zeros_like(rows))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        head = torch.arange(heads)
        by_context = rows[:, None] * heads + head[:, None]
        by_row = (home[:, None] * heads + head) * widest + (place - starts[home])[:, None]
        found = (rows, order, place, starts.int(), by_context.flatten(), by_row.flatten())
        return cls(*(to_device(each, device) for each in found))
