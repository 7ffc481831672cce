"""A second policy with weights of its own, for whoever draws while the first one is trained."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cohort.policies.agents import members_of
from cohort.policies.causal_lm import CausalLM
from cohort.types.policy import Policy

P = TypeVar("P", bound=Policy)


def replica(policy: P) -> P:
    """A copy with weights and a tokenizer of its own. What is not trained is shared: frozen weights, and the models in roles,
    of which only those that stay as they are may be asked."""
    memo: dict[int, object] = {}
    for member in members_of(policy).values():
        memo |= {id(weight): weight for weight in member.model.parameters() if not weight.requires_grad}
        if isinstance(member, CausalLM):
            memo |= {id(model): model for role, model in member.roles.models.items() if role != "policy"}
            if member.compiled is not None:
                memo[id(member.compiled)] = None
    return copy.deepcopy(policy, memo)


@torch.no_grad()
def weights_of(policy: Policy) -> list[Tensor]:
    """The weights that are trained, copied into the processor's memory."""
    return [weight.detach().to("cpu", copy=True) for weight in policy.trainable()]


@torch.no_grad()
def take_over(policy: Policy, weights: Sequence[Tensor]) -> None:
    """Take over what `weights_of` gave."""
    for own, given in zip(policy.trainable(), weights, strict=True):
        own.copy_(given)
