"""The roles that models have in training: how each is made, how it moves, whether a checkpoint holds it.

policy     trained
reference  the policy as the run began; of a LoRA run, the policy with its adapters switched off
ema        a copy that moves slowly after the policy: role <- decay * role + (1 - decay) * policy
old        a copy that becomes the policy again every few updates
critic     a value function, trained
target     a copy that moves slowly after the critic
teacher    another model with the policy's tokens, which stays as it is
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cohort.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """How the model of a role is made and moved.

    Attributes:
        source: the role that it is a copy of, as that is when the copy is made; None for a model of its own.
        every: updates after which it moves towards its source; 0 never moves it.
        decay: the share of itself that it keeps when it moves; 0 makes it what its source is.
        unbiased: it keeps less at first, so that all sources so far count by their age alone, the first one too.
        trained: it is a model of its own that is trained beside the policy.
        stored: its weights stand among those of the roles in a checkpoint. Others are there again when a run is set up
            anew, or (the policy's) are the checkpoint's model.
    """

    source: str | None = None
    every: int = 0
    decay: float = 0.0
    unbiased: bool = False
    trained: bool = False
    stored: bool = True


RULES: dict[str, Rule] = {
    "policy": Rule(stored=False),
    "reference": Rule("policy", stored=False),
    "ema": Rule("policy", every=1, decay=0.99),
    "old": Rule("policy", every=1),
    "critic": Rule(trained=True),
    "target": Rule("critic", every=1, decay=0.995),
    "teacher": Rule(stored=False),
}
# What roles are called in the checkpoints of earlier versions.
FORMERLY = {"ema": "teacher"}


class Roles:
    """See `cohort.types.policy.Roles`.

    Args:
        policy: the module that is trained.
        critic: kind -> a new value function for it; None if it can have none.

    Attributes:
        models: role -> module; "reference" is missing where it is the policy without its adapters.
        rules: role -> how its model is made and moved.
    """

    def __init__(self, policy: nn.Module, critic: Callable[[str], nn.Module] | None = None) -> None:
        self.models: dict[str, nn.Module] = {"policy": policy}
        self.rules: dict[str, Rule] = {"policy": RULES["policy"]}
        self._critic = critic

    def make(self, role: str, *, kind: str = "", model: nn.Module | None = None, **how: Any) -> None:
        """Have a model play a role from now on.

        Args:
            kind: of a critic.
            model: that plays the teacher.
            how: `every`, `decay` and `unbiased`, where the role's rule is another.

        Raises:
            UsageError: the policy can have no critic.
            RuntimeError: there is no such role, or none plays the one that it copies.
        """
        if role not in RULES or role == "policy":
            raise RuntimeError(f"there is no role '{role}' to make (there are: {', '.join(list(RULES)[1:])})")
        rule = replace(RULES[role], **how)
        if role == "teacher":
            if model is None:
                raise RuntimeError("no model was given that is to be the teacher")
            self.models[role] = model.eval().requires_grad_(False)
        elif rule.source is None:
            if self._critic is None:
                raise UsageError(
                    "the method trains a value function, and this policy can have none: leave its critic out"
                )
            self.models[role] = self._critic(kind)
        elif role != "reference" or not has_adapter(self.models["policy"]):
            if rule.source not in self.models:
                raise RuntimeError(f"the role '{role}' copies the {rule.source}, which was not made")
            self.models[role] = copy.deepcopy(self.models[rule.source]).requires_grad_(False)
        self.rules[role] = rule

    @contextlib.contextmanager
    def playing(self, role: str) -> Iterator[Any]:
        """The model that plays a role, for as long as the context is open.

        Raises:
            RuntimeError: none was made.
        """
        policy: Any = self.models["policy"]
        if role in self.models:
            yield self.models[role]
        elif role == "reference" and has_adapter(policy):
            with policy.disable_adapter():
                yield policy
        else:
            raise RuntimeError(f"no model plays the role '{role}': call roles.make('{role}') before training")

    def trained(self) -> list[nn.Parameter]:
        """Parameters that are trained in addition to the policy's own."""
        own = (model for role, model in self.models.items() if self.rules[role].trained)
        return [parameter for model in own for parameter in model.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def move(self, updates: int) -> None:
        """Move the models that follow another, after the update with this number (the first is 1)."""
        for role, rule in self.rules.items():
            if rule.source is not None and rule.every and updates % rule.every == 0:
                source = self.models[rule.source].parameters()
                taken = 1.0 / total_weight(rule.decay, updates // rule.every) if rule.unbiased else 1.0 - rule.decay
                for own, followed in zip(self.models[role].parameters(), source, strict=True):
                    own.lerp_(followed, taken)

    def following(self) -> Iterator[nn.Module]:
        """Models that move without being trained."""
        return (self.models[role] for role, rule in self.rules.items() if rule.source is not None and rule.every)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """role -> weights, of those that a checkpoint holds."""
        return {role: self.models[role].state_dict() for role, rule in self.rules.items() if rule.stored}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take over what `state_dict` gave, now or in an earlier version.

        Raises:
            KeyError: a role is missing.
        """
        for role, rule in self.rules.items():
            if rule.stored:
                self.models[role].load_state_dict(state[role if role in state else FORMERLY.get(role, role)])


def total_weight(decay: float, moves: int) -> float:
    """W of an average after a number of moves: 1 + decay + ... + decay^moves, from W = 1, W' = decay W + 1 at each.

    Source: arXiv:2110.00641.
    """
    return (1.0 - decay ** (moves + 1)) / (1.0 - decay) if decay < 1 else moves + 1.0


def has_adapter(model: Any) -> bool:
    """True if low-rank adapters are trained rather than the model itself."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")
