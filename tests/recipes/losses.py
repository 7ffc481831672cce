"""Loss and gradient of a method on a batch, through every stage of the update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cohort import registry
from cohort.methods import Method
from cohort.types import Batch, StepInfo
from tests.helpers import info_of


def taken(method: str | Method, batch: Batch, info: StepInfo | None = None, **hyper: Any) -> tuple[Tensor, Tensor]:
    """(loss, its derivative with respect to logp [N, T]); hyperparameters where the method is a name.

    Args:
        info: None for a step of a run with the rewards of a random batch.
    """
    made = registry.method(method, **hyper) if isinstance(method, str) else method
    logp = batch._tokens["logp"].detach().clone().requires_grad_()
    bound = made.bind(made.init(size=int(batch["row"].max()) + 1), info or info_of(batch))
    loss = bound.loss(bound.prepare(batch.with_tokens(logp=logp)).batch).total
    if not loss.requires_grad:
        return loss, torch.zeros_like(logp)
    (grad,) = torch.autograd.grad(loss, logp, allow_unused=True, materialize_grads=True)
    return loss.detach(), grad


def on_policy(batch: Batch) -> Batch:
    """The batch before the first update: the current policy is the sampling policy."""
    return batch.replace(logp=batch._tokens["old_logp"])
