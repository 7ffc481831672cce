"""Soft steps: actions that are mixtures of tokens, fed back as mixtures of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

Clamp = tuple[float, float]


def perturb(
    probs: Tensor,
    uniforms: Tensor,
    *,
    noise_factor: float = 1.0,
    noise_clamp: Clamp = (-1.5, 3.0),
    prob_eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """(eps, g) [..., K] of a soft step: g_k = log(q_k + prob_eps) + noise_factor eps_k, from uniforms in (0, 1)."""
    noise = (-(-uniforms.log()).log()).clamp(*noise_clamp)
    return noise, (probs + prob_eps).log() + noise_factor * noise


def mixture(perturbed: Tensor, *, gumbel_temperature: float = 0.1) -> Tensor:
    """softmax(g / temperature): the weights [..., K] of the next input's embeddings."""
    return (perturbed / gumbel_temperature).softmax(-1)


def density(log_probs: Tensor, perturbed: Tensor, *, noise_clamp: Clamp, log_prob_cut: float) -> Tensor:
    """[...] mean over {k: log q_k > cut} of -e_k - exp(-e_k), e = clamp(g - log q): the log density of a soft step."""
    noise = (perturbed - log_probs).clamp(*noise_clamp)
    kept = (log_probs > log_prob_cut).to(log_probs.dtype)
    return ((-noise - (-noise).exp()) * kept).sum(-1) / kept.sum(-1).clamp(min=1)


class SoftStep(NamedTuple):
    """The candidates of a soft step: [K] token ids (int32) and their perturbed log-probabilities (float32)."""

    ids: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Mixer:
    """How soft steps are drawn and scored, with Gumbel noise. Source: arXiv:2511.06411.

    Attributes:
        candidates: K, the most likely tokens that are mixed.
        end: token ids with which soft steps end, where the heaviest tokens spell them; what follows is discrete.
        noise_factor, gumbel_temperature, noise_clamp, prob_eps: see `perturb` and `mixture`; log_prob_cut: see `density`.
    """

    candidates: int = 5
    end: tuple[int, ...] = ()
    noise_factor: float = 1.0
    gumbel_temperature: float = 0.1
    noise_clamp: Clamp = (-1.5, 3.0)
    log_prob_cut: float = -3.0
    prob_eps: float = 1e-6

    def draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """g [..., K] from the logits of the candidates; normalised over the vocabulary or not, q is the same."""
        how: dict[str, Any] = {"noise_clamp": self.noise_clamp, "prob_eps": self.prob_eps}
        return perturb(logits.softmax(-1), uniforms, noise_factor=self.noise_factor, **how)[1]

    def weights(self, scores: Tensor) -> Tensor:
        """[..., K] of the embeddings that make the next input."""
        return mixture(scores, gumbel_temperature=self.gumbel_temperature)

    def logp(self, logits: Tensor, scores: Tensor) -> Tensor:
        """[...] log density of soft steps, from the logits of their candidates; the gradient goes to those."""
        log_probs = (logits.softmax(-1) + self.prob_eps).log()
        return density(log_probs, scores.to(logits.dtype), noise_clamp=self.noise_clamp, log_prob_cut=self.log_prob_cut)

    def state(self) -> dict[str, Any]:
        """As numbers, for a checkpoint."""
        return asdict(self)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Mixer:
        """What `state` gave."""
        return cls(**{**state, "end": tuple(state["end"]), "noise_clamp": tuple(state["noise_clamp"])})
