"""Value functions: what the policy can expect from each token on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Critic(nn.Module):
    """A linear head on hidden states: those of the policy itself, or of a model of its own.

    Args:
        hidden: width of the hidden states.
        backbone: the model whose hidden states the head reads, trained with it; None reads the policy's, and the value
            loss then reaches the policy's backbone as well.
    """

    def __init__(self, hidden: int, backbone: Any = None) -> None:
        super().__init__()
        self.head = nn.Linear(hidden, 1)
        # A critic that knows nothing expects nothing: the first advantages are the rewards themselves.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.backbone = backbone

    @classmethod
    def beside(cls, model: Any, kind: str) -> Critic:
        """A critic for a transformers model: "head" on its own hidden states, or "model" on those of a copy."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        backbone = copy.deepcopy(model).requires_grad_(True) if kind == "model" else None
        weight = next(base.parameters())
        return cls(base.config.hidden_size, backbone).to(device=weight.device, dtype=weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values [...] of hidden states [..., d]."""
        values: Tensor = self.head(hidden.to(self.head.weight.dtype))[..., 0]
        return values if values.dtype == torch.float64 else values.float()
