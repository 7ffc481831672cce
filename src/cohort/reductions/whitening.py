"""Tokens' advantages on one scale."""

from __future__ import annotations

import torch
from torch import Tensor


def whitened(gain: Tensor, counted: Tensor, mask: Tensor) -> Tensor:
    """(gain - mean) / sqrt(variance + 1e-8) at all tokens, with mean and unbiased variance of those counted: [N, T]."""
    count, kept = counted.sum(), torch.where(counted, gain, torch.zeros_like(gain))
    mean = kept.sum() / count.clamp(min=1)
    spread = torch.where(counted, (gain - mean) ** 2, torch.zeros_like(gain)).sum() / (count - 1).clamp(min=1)
    white = (gain - mean) / (spread + 1e-8).sqrt()
    # Equal advantages stay equal: their rounding is nothing to blow up.
    scale = torch.where(counted, gain.abs(), torch.zeros_like(gain)).amax() if gain.numel() else mean
    white = torch.where(spread > 1e-20 * scale**2, white, torch.zeros_like(white))
    return torch.where(mask, white, torch.zeros_like(white))
