"""How far the policy has moved from rollouts that a state stores with their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.types import Context, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import State


def stored(rollout: Rollout, logp: Tensor) -> State:
    """One rollout as a state: its context, tokens and mask, and log-probabilities `logp` [L]."""
    return {
        "context": rollout.context.state(),
        "tokens": torch.tensor(rollout.tokens, dtype=torch.int32),
        "mask": torch.tensor(rollout.mask, dtype=torch.bool),
        # A copy, since a slice would take the whole batch with it into a checkpoint.
        "logp": logp[: len(rollout.tokens)].cpu().clone(),
    }


def rescored(held: Sequence[State], rollouts: Sequence[Rollout], access: ModelAccess) -> tuple[Tensor, Tensor]:
    """Log-probabilities now, [n, T] each: of stored rollouts, and of others, in one go."""
    contexts = [Context.of_state(each["context"]) for each in held] + [r.context for r in rollouts]
    tokens = [each["tokens"].tolist() for each in held] + [r.tokens for r in rollouts]
    logp = access.log_probs(contexts, tokens)["logp"].cpu()
    return logp[: len(held)], logp[len(held) :]


def drift(held: State, logp: Tensor) -> Tensor:
    """Mean absolute change from a stored rollout's log-probabilities to `logp` [T] over its tokens with mask 1."""
    before, mask = held["logp"], held["mask"]
    mean: Tensor = ((before - logp[: len(mask)]).abs() * mask).sum() / mask.sum().clamp(min=1)
    return mean
