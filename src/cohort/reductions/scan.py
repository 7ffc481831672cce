"""Recurrences along the tokens, in log2(T) vectorised steps."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_sum(values: Tensor, decay: Tensor) -> Tensor:
    """[N, T] out_t = values_t + decay_t out_(t+1), with 0 beyond the end; `values` and `decay` are [N, T].

    The pairs (decay, value) combine associatively, so spans of doubling length are merged: exact for any decay, and
    without the underflow of dividing by powers of it.
    """
    values, decay, step = values.clone(), decay.clone(), 1
    while step < values.shape[1]:
        values = torch.cat([values[:, :-step] + decay[:, :-step] * values[:, step:], values[:, -step:]], 1)
        # Beyond the end nothing follows, so what is multiplied there never matters.
        decay = torch.cat([decay[:, :-step] * decay[:, step:], decay[:, -step:]], 1)
        step *= 2
    return values
