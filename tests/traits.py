"""What tests of all methods must know of one: its adapter (tests/golden/adapters/<slug>.py) may say

random_fields(batch, generator)   the random batch with the fields that the method's hooks would attach
ORDERED = True                    its rule breaks ties by the order of rollouts, which is part of the paper's rule
NAMED = (...)                     names of the rewards that its random batch has after its own
QUIET = True                      its gradient may vanish on a random batch; the reason stands beside it
TRAIN = {...}                     configuration keys with which it trains on the micro task (tests/micro.py)
HYPER_TRAIN = "(...)"             hyperparameters with which it trains there
LEARNS = "rises" | "..."          see tests/recipes/test_learning.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cohort.methods import Method
from cohort.training.update import SCORED
from cohort.types import Batch, StepInfo
from tests.golden.runner import adapter
from tests.helpers import info_of, random_batch


def trait(name: str, what: str, default: Any = None) -> Any:
    """What the adapter of a method says."""
    return getattr(adapter(name), what, default)


def with_fields(batch: Batch, *names: str, seed: int = 0) -> Batch:
    """The batch with the fields that the hooks of methods would attach."""
    for name in names:
        add = trait(name, "random_fields")
        if add is not None:
            batch = add(batch, torch.Generator().manual_seed(seed + 77))
    return batch


def batch_for(*names: str, seed: int = 0, **kwargs: Any) -> Batch:
    """A random batch that the methods can work on."""
    return with_fields(random_batch(seed, **kwargs), *names, seed=seed)


def info_for(batch: Batch, *names: str) -> StepInfo:
    """Where a run with the methods stands, of which `batch_for` made a batch."""
    return info_of(batch, *(reward for name in names for reward in trait(name, "NAMED", ())))


def rollouts_for(batch: Batch) -> list[Any]:
    """A rollout for each row of a random batch, which has none: no hook reads it there."""
    return [None] * batch.size


def with_leaves(method: Method, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
    """The batch with everything that the policy's forward pass gives as leaves, and these."""
    wanted = (method.needs(loss=True) & SCORED) | {"logp"}
    leaves = {name: batch._tokens[name].clone().requires_grad_() for name in sorted(wanted) if name in batch}
    return batch.with_tokens(**leaves), leaves


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Derivative of the loss with respect to each leaf; zeros where it does not depend on it."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))
