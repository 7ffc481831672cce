"""Drawing the next token of every rollout from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.axes.entropy import EntropyScale, entropy_temperature
from cohort.batch import Request
from cohort.engine.base import Sampling
from cohort.engine.truncation import allowed, draw


def context_of(request: Request) -> tuple[int, ...]:
    """Token ids that the next token follows."""
    return (*request.context, *request.prefix)


def adaptive_of(requests: list[Request], device: torch.device) -> Tensor | None:
    """[B, 5] float32 of `Request.adaptive`, with tau 0 for requests without; None if there is none with."""
    if all(r.adaptive is None for r in requests):
        return None
    return torch.tensor([r.adaptive or (0.0, 0.0, 1.0, 1.0, -1.0) for r in requests], device=device)


def pick(
    logits: Tensor, uniforms: Tensor, sampling: Sampling, adaptive: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token, log-probability, log-probability as drawn (adaptive temperature, truncation) and entropy, each [B]."""
    logits = logits.float()
    log_probs = (logits if sampling.greedy else logits / sampling.temperature).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    kept = log_probs
    if sampling.greedy:
        chosen = log_probs.argmax(-1)
    else:
        if adaptive is not None:
            kept = _reheated(logits, log_probs, entropy, sampling.temperature, adaptive)
        if sampling.truncated:
            kept = kept.masked_fill(~allowed(kept, sampling), -torch.inf).log_softmax(-1)
        chosen = draw(kept, uniforms)
    at = chosen[:, None]
    return chosen, log_probs.gather(1, at)[:, 0], kept.gather(1, at)[:, 0], entropy


def _reheated(logits: Tensor, log_probs: Tensor, entropy: Tensor, temperature: float, adaptive: Tensor) -> Tensor:
    """[B, V] log-probabilities at the temperature of each row's own entropy; `log_probs` where a row does not ask."""
    tau, median, std, pos_max, neg_min = adaptive.unbind(1)
    scale = EntropyScale(median, std, pos_max, neg_min)
    own = entropy_temperature(entropy, scale, base=temperature, tau=tau)
    return torch.where((tau != 0)[:, None], (logits / own[:, None]).log_softmax(-1), log_probs)
