"""Which tokens may be drawn, and drawing one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.engine.base import Sampling


def allowed(log_probs: Tensor, sampling: Sampling) -> Tensor:
    """[B, V] bool: tokens that top-k, then min-p, then top-p keep, from log-probabilities [B, V].

    The most likely token is always kept. top-p keeps the smallest set of most likely tokens whose mass is at least p.
    """
    keep = torch.ones_like(log_probs, dtype=torch.bool)
    if 0 < sampling.top_k < log_probs.shape[1]:
        smallest = log_probs.topk(sampling.top_k, -1).values[:, -1:]
        keep &= log_probs >= smallest
    if sampling.min_p > 0:
        floor = log_probs.amax(-1, keepdim=True) + torch.tensor(sampling.min_p, device=log_probs.device).log()
        keep &= log_probs >= floor
    if sampling.top_p < 1.0:
        masked = log_probs.masked_fill(~keep, -torch.inf)
        ordered, order = masked.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(-1)
        before = mass.cumsum(-1) - mass
        keep = torch.zeros_like(keep).scatter(1, order, (before < sampling.top_p) & (ordered > -torch.inf))
    return keep


def draw(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """[B] token ids: the inverse of the distribution function at `uniforms` [B] float64 in [0, 1).

    Args:
        log_probs: [B, V]; -inf where a token cannot be drawn; need not be normalised.
    """
    mass = (log_probs - log_probs.amax(-1, keepdim=True)).double().exp().cumsum(-1)
    at = torch.searchsorted(mass, (uniforms[:, None].to(mass.device) * mass[:, -1:]), right=True)[:, 0]
    # Rounding can only push past the end, where the last token with mass is meant.
    last = (log_probs > -torch.inf).int().cumsum(-1).argmax(-1)
    return torch.minimum(at, last)
