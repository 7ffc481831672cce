"""Entropies on the scale of a batch: which tokens are near certain, and which fork."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-8


class EntropyScale(NamedTuple):
    """What entropies are compared with, as numbers or as tensors that broadcast against them.

    Attributes:
        median: pivot of the log entropies.
        std: root mean square distance of the log entropies from the pivot.
        pos_max, neg_min: largest (at least 1e-8) and smallest (at most -1e-8) of (log entropy - median) / std.
    """

    median: float | Tensor
    std: float | Tensor
    pos_max: float | Tensor
    neg_min: float | Tensor


def entropy_scale(entropy: Tensor, mask: Tensor, *, pivot: float = 0.8) -> EntropyScale | None:
    """Median, std, pos_max and neg_min of x = log max(H, 1e-8) over the tokens with mask 1, without gradient.

    Args:
        entropy: [N, T] in nats.
        pivot: quantile that counts as neither low nor high, taken at the nearest rank.

    Returns:
        scalar tensors; None if there is no token.
    """
    x = entropy.detach()[mask].clamp(min=FLOOR).log()
    if x.numel() == 0:
        return None
    median = x.kthvalue(round(pivot * (x.numel() - 1)) + 1).values
    std = ((x - median) ** 2).mean().clamp(min=FLOOR).sqrt()
    h = (x - median) / std
    return EntropyScale(median, std, h.max().clamp(min=FLOOR), h.min().clamp(max=-FLOOR))


def scaled_entropy(entropy: Tensor, scale: EntropyScale) -> Tensor:
    """h = (log H - median) / std, divided by pos_max where it is above 0 and by |neg_min| elsewhere.

    In [-1, 1] for the entropies that the scale was made of: negative for the more certain tokens.
    """
    h = (entropy.detach().clamp(min=FLOOR).log() - scale.median) / scale.std
    return torch.where(h > 0, h / scale.pos_max, h / -scale.neg_min)


def entropy_temperature(entropy: Tensor, scale: EntropyScale, *, base: float, tau: float | Tensor) -> Tensor:
    """T = base (1 + tau clip(h, -1, 1)): hotter where the next token is open, cooler where it is near certain."""
    return base * (1 + tau * scaled_entropy(entropy, scale).clamp(-1, 1))


@dataclass(frozen=True)
class EntropyTemperature:
    """A processor (see `cohort.types.Processor`) that draws every token at the temperature of its own entropy."""

    tau: float
    median: float
    std: float
    pos_max: float
    neg_min: float

    def factor(self, entropy: Tensor) -> Tensor:
        """[B] 1 + tau clip(h, -1, 1), h the entropies [B] on the scale."""
        scale = EntropyScale(self.median, self.std, self.pos_max, self.neg_min)
        return entropy_temperature(entropy, scale, base=1.0, tau=self.tau)
