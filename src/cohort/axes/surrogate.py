"""Surrogate axis: ratio and advantage -> token losses. A function returns what is minimised, [N, T]."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.types import Batch


def per_token(x: float | Tensor) -> float | Tensor:
    """A bound per rollout, [N], made to broadcast over tokens."""
    return x[:, None] if isinstance(x, Tensor) and x.ndim == 1 else x


def clipped(ratio: Tensor, advantages: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A); `low` and `high` are numbers, [N] or [N, T]."""
    low, high = per_token(low), per_token(high)
    bounded = torch.minimum(torch.maximum(ratio, _bound(1.0 - low, ratio)), _bound(1.0 + high, ratio))
    return -torch.minimum(ratio * advantages, bounded * advantages)


def _bound(x: float | Tensor, like: Tensor) -> Tensor:
    return x if isinstance(x, Tensor) else torch.full((), x, dtype=like.dtype, device=like.device)


def ppo_clip(batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2) -> Tensor:
    """l_it = -min(rho A, clip(rho, 1 - low, 1 + high) A).

    Args:
        low: how far below 1 the ratio may go before a negative advantage stops pushing, in [0, 1].
        high: how far above 1 it may go before a positive advantage stops pushing.

    Returns:
        [N, T].

    Source: arXiv:1707.06347 eq. 7; separate bounds: arXiv:2503.14476.
    """
    return clipped(ratio, advantages, low, high)


def dual_clipped(ratio: Tensor, advantages: Tensor, low: float | Tensor, high: float | Tensor, cap: float) -> Tensor:
    """The clipped loss, and at most -cap A where A < 0, so that a ratio far above 1 does not push without end."""
    loss = clipped(ratio, advantages, low, high)
    return torch.where(advantages < 0, torch.minimum(loss, -cap * advantages), loss)


def dual_clip(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, low: float = 0.2, high: float = 0.2, cap: float = 3.0
) -> Tensor:
    """l_it = -min(rho A, clip(rho, 1 - low, 1 + high) A), and at most -cap A where A < 0.

    Args:
        cap: ratio from which a negative advantage no longer pushes, above 1 + high.

    Returns:
        [N, T].

    Source: arXiv:1912.09729.
    """
    return dual_clipped(ratio, advantages, low, high, cap)


def reinforce(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """l_it = -A_it logp_it; the ratio is not used.

    Returns:
        [N, T].

    Source: Williams 1992; for language models arXiv:2402.14740.
    """
    return -advantages * batch.logp


def unclipped(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """l_it = -rho A: the importance-weighted policy gradient without a trust region.

    Returns:
        [N, T].
    """
    return -ratio * advantages


def soft_gate(
    batch: Batch, ratio: Tensor, advantages: Tensor, *, tau_pos: float = 1.0, tau_neg: float = 1.05
) -> Tensor:
    """l_it = -(4 / tau) sigmoid(tau (rho - 1)) A, tau by the sign of A: a clip without corners, of slope 1 at rho = 1.

    Args:
        tau_pos, tau_neg: how fast the push fades away from rho = 1, for A > 0 and for the others.

    Returns:
        [N, T].

    Source: SAPO (Soft Adaptive Policy Optimization), as arXiv:2602.10687 uses it.
    """
    tau = torch.where(advantages > 0, tau_pos, tau_neg).to(ratio.dtype)
    return -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages


def clipped_weight(
    ratio: Tensor,
    advantages: Tensor,
    *,
    is_clip_low: float | None,
    is_clip_high: float,
    mask_low: float | None = None,
    mask_high: float | None = None,
) -> Tensor:
    """[N, T] the ratio without gradient, clipped, and 0 where it has gone too far already."""
    ratio = ratio.detach()
    low = None if is_clip_low is None else 1 - is_clip_low
    weight = ratio.clamp(min=low, max=1 + is_clip_high)
    if mask_high is not None:
        weight = weight.masked_fill((advantages > 0) & (ratio > 1 + mask_high), 0)
    if mask_low is not None:
        weight = weight.masked_fill((advantages < 0) & (ratio < 1 - mask_low), 0)
    return weight


def weighted_reinforce(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    is_clip_low: float | None = None,
    is_clip_high: float = 4.0,
    mask_low: float | None = None,
    mask_high: float | None = None,
) -> Tensor:
    """l_it = -sg[w_it] A_it logp_it, w the clipped ratio: every token keeps a gradient.

    Args:
        is_clip_low, is_clip_high: how far below and above 1 the weight may go; None for no lower bound.
        mask_low, mask_high: how far the ratio may go against the sign of A before the token counts no more.

    Returns:
        [N, T].

    Source: arXiv:2506.13585 eq. 4.
    """
    clip = {"is_clip_low": is_clip_low, "is_clip_high": is_clip_high, "mask_low": mask_low, "mask_high": mask_high}
    return -clipped_weight(ratio, advantages, **clip) * advantages * batch.logp  # type: ignore[arg-type]
