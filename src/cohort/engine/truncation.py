"""Which tokens may be drawn, and drawing one of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from cohort.engine.base import Sampling

# Tokens whose mass is summed up before one of them is looked for.
BLOCK = 256


def allowed(log_probs: Tensor, sampling: Sampling) -> Tensor:
    """[B, V] bool: tokens that top-k, then min-p, then top-p keep, from log-probabilities [B, V].

    The most likely token is always kept, one of log-probability -inf never. top-p keeps the smallest set of most likely
    tokens whose mass is at least p.
    """
    keep = log_probs > -torch.inf
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


def draw(weight: Tensor, uniforms: Tensor) -> Tensor:
    """[B] token ids: the inverse of the distribution function at `uniforms` [B] float64 in [0, 1).

    First the block of tokens is found, then the token in it: the running sum over a large vocabulary is slow.

    Args:
        weight: [B, V] probabilities; 0 where a token cannot be drawn; need not sum to 1.
    """
    if weight.shape[1] <= BLOCK:
        mass = weight.double().cumsum(-1)
        return _first_above(mass, uniforms.to(mass.device)[:, None] * mass[:, -1:])[:, 0]
    # The last, broken block is summed apart: padding would copy the whole vocabulary.
    blocks = weight.shape[1] // BLOCK
    sums = weight[:, : blocks * BLOCK].unflatten(1, (blocks, BLOCK)).sum(-1)
    rest = weight[:, blocks * BLOCK :]
    sums = torch.cat([sums, rest.sum(-1, keepdim=True)], 1).double().cumsum(-1)
    aim = uniforms.to(sums.device)[:, None] * sums[:, -1:]
    block = _first_above(sums, aim)
    aim = aim - pad(sums, (1, 0)).gather(1, block)
    place = block * BLOCK + torch.arange(BLOCK, device=weight.device)
    inside = place < weight.shape[1]
    chosen = weight.gather(1, place.clamp(max=weight.shape[1] - 1)).masked_fill(~inside, 0.0)
    return (block * BLOCK + _first_above(chosen.double().cumsum(-1), aim))[:, 0]


def _first_above(mass: Tensor, aim: Tensor) -> Tensor:
    """[B, 1] first place at which a running sum [B, n] exceeds `aim` [B, 1]; the last one with mass where rounding has
    pushed the aim past it."""
    last = torch.searchsorted(mass, mass[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(mass, aim, right=True), last)
