"""Several policies as one: each agent of an episode has its own, or the one that all others share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cohort.devices import to_device
from cohort.errors import UsageError
from cohort.types import Rollout
from cohort.types.batch import label_of
from cohort.types.policy import Actions, Policy
from cohort.types.support import Support

# Where the policies of agents stand in the folder of the one that the others share.
FOLDER = "agents"


@dataclass(frozen=True)
class AgentActions:
    """Actions of several policies.

    Attributes:
        owner: [n] int64, the policy that each row is of.
        parts: the actions of each policy, in the order of its rows.
    """

    owner: Tensor
    parts: tuple[Actions, ...]

    def __len__(self) -> int:
        return len(self.owner)

    def rows(self, k: int) -> Tensor:
        """Rows [m] int64 of a policy."""
        return (self.owner == k).nonzero()[:, 0]

    def select(self, rows: Tensor) -> AgentActions:
        """See Actions."""
        rows = rows.cpu()
        owner, place = self.owner[rows], torch.zeros_like(self.owner)
        for k in range(len(self.parts)):
            own = self.rows(k)
            place[own] = torch.arange(len(own))
        return AgentActions(owner, tuple(part.select(place[rows[owner == k]]) for k, part in enumerate(self.parts)))

    def in_contexts(self, contexts: Sequence[Tensor]) -> AgentActions:
        """See Actions."""
        parts = (
            part.in_contexts([contexts[row] for row in self.rows(k).tolist()]) for k, part in enumerate(self.parts)
        )
        return AgentActions(self.owner, tuple(parts))

    def __add__(self, other: AgentActions) -> AgentActions:
        """See Actions."""
        both = (a + b for a, b in zip(self.parts, other.parts, strict=True))
        return AgentActions(torch.cat([self.owner, other.owner]), tuple(both))


class AgentRoles:
    """The models in roles beside each of several policies; see `cohort.types.policy.Roles`."""

    def __init__(self, members: Mapping[str, Policy]) -> None:
        self.members = members

    def make(self, role: str, **how: Any) -> None:
        """See Roles: each policy has its own."""
        for policy in self.members.values():
            policy.roles.make(role, **how)

    def playing(self, role: str) -> AbstractContextManager[Any]:
        """See Roles.

        Raises:
            UsageError: always, since it would not be known whose.
        """
        raise UsageError(
            f"there are {len(self.members)} policies here, each with its own {role}: a method asks for one"
        )

    def trained(self) -> list[nn.Parameter]:
        """See Roles."""
        return [parameter for policy in self.members.values() for parameter in policy.roles.trained()]

    def move(self, updates: int) -> None:
        """See Roles."""
        for policy in self.members.values():
            policy.roles.move(updates)

    def following(self) -> Iterator[nn.Module]:
        """See Roles."""
        return (model for policy in self.members.values() for model in policy.roles.following())

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """See Roles: agent -> role -> weights."""
        return {agent: policy.roles.state_dict() for agent, policy in self.members.items()}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """See Roles."""
        for agent, policy in self.members.items():
            policy.roles.load_state_dict(state[agent])


class AgentPolicies:
    """Several policies that are trained together; see `cohort.types.policy.Policy`.

    They read and write the same actions: one tokenizer, one chat template.

    Args:
        shared: the policy of every agent that has none of its own.
        own: agent -> its policy.

    Raises:
        UsageError: their tokenizers differ.
    """

    def __init__(self, shared: Policy, own: Mapping[str, Policy]) -> None:
        self.shared = shared
        self.members: dict[str, Policy] = {"": shared, **own}
        self._index = {label_of(agent): k for k, agent in enumerate(self.members)}
        self.roles = AgentRoles(self.members)
        self.name = shared.name
        for agent, policy in own.items():
            if _vocabulary(policy.renderer) != _vocabulary(shared.renderer):
                raise UsageError(
                    f"the model of the agent '{agent}' ({policy.name or 'given'}) has another tokenizer or chat template than "
                    f"{shared.name or 'the model'}: agents of an episode speak with one tokenizer, so take models that share it"
                )

    # what is one of all --------------------------------------------------------------------------------------------

    @property
    def renderer(self) -> Any:
        """See Policy: they have the same."""
        return self.shared.renderer

    @property
    def model(self) -> nn.ModuleList:
        """See Policy: the modules of all."""
        return nn.ModuleList([policy.model for policy in self.members.values()])

    @property
    def device(self) -> torch.device:
        return self.shared.device

    @property
    def dtype(self) -> torch.dtype:
        return self.shared.dtype

    @property
    def vocabulary(self) -> int:
        """See Policy."""
        return min(policy.vocabulary for policy in self.members.values())

    @property
    def pass_tokens(self) -> int:
        """See Policy."""
        return min(policy.pass_tokens for policy in self.members.values())

    @property
    def halved(self) -> bool:
        """See Policy."""
        return self.shared.halved

    @halved.setter
    def halved(self, value: bool) -> None:
        for policy in self.members.values():
            policy.halved = value

    def trainable(self) -> list[nn.Parameter]:
        """See Policy."""
        return [parameter for policy in self.members.values() for parameter in policy.trainable()]

    def clipped_apart(self) -> list[list[nn.Parameter]]:
        """The parameters of each policy, whose gradients are clipped by themselves."""
        return [[*policy.trainable(), *policy.roles.trained()] for policy in self.members.values()]

    # actions -------------------------------------------------------------------------------------------------------

    def _of(self, labels: Iterable[int]) -> Tensor:
        """[n] int64, the policy of each agent."""
        return torch.tensor([self._index.get(label, 0) for label in labels], dtype=torch.int64)

    def actions(self, rollouts: Sequence[Rollout]) -> AgentActions:
        """See Policy."""
        owner = self._of(label_of(rollout.agent) for rollout in rollouts)
        parts = (
            policy.actions([rollouts[row] for row in (owner == k).nonzero()[:, 0].tolist()])
            for k, policy in enumerate(self.members.values())
        )
        return AgentActions(owner, tuple(parts))

    def actions_after(
        self,
        contexts: Sequence[Sequence[int]],
        tokens: Sequence[Sequence[int]],
        support: Sequence[Support | None] = (),
        *,
        agents: Sequence[int] | None = None,
    ) -> AgentActions:
        """See Policy.

        Args:
            agents: the label of each row's agent (`label_of`).

        Raises:
            UsageError: they are not known, so that it would not be known whose actions they are.
        """
        if agents is None:
            raise UsageError(
                "the method scores texts that are no agent's, and there are several policies: train it with one (leave "
                "agent_models out)"
            )
        owner, parts = self._of(agents), []
        for k, policy in enumerate(self.members.values()):
            own = (owner == k).nonzero()[:, 0].tolist()
            given = ([contexts[i] for i in own], [tokens[i] for i in own], [support[i] for i in own] if support else ())
            parts.append(policy.actions_after(*given))
        return AgentActions(owner, tuple(parts))

    def log_probs(
        self,
        actions: Actions,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        """See Policy: a pass of each policy that has rows."""
        assert isinstance(actions, AgentActions)
        out: dict[str, Tensor] = {}
        for k, policy in enumerate(self.members.values()):
            rows = actions.rows(k)
            if not len(rows):
                continue
            found = policy.log_probs(actions.parts[k], width=width, temperature=temperature, want=want, role=role)
            for name, value in found.items():
                whole = out.get(name, value.new_zeros(len(actions), *value.shape[1:]))
                out[name] = whole.index_put((to_device(rows, value.device),), value.to(whole.dtype))
        return out

    def micro_batches(self, actions: Actions, max_tokens: int) -> list[Tensor]:
        """See Policy: each of one policy's rows."""
        assert isinstance(actions, AgentActions)
        parts = []
        for k, policy in enumerate(self.members.values()):
            own = actions.rows(k)
            if len(own):
                parts += [own[rows] for rows in policy.micro_batches(actions.parts[k], max_tokens)]
        return parts

    def first_not_finite(self, actions: Actions, role: str = "policy") -> str | None:
        """See Policy."""
        assert isinstance(actions, AgentActions)
        k = int(actions.owner[0])
        agent, policy = list(self.members.items())[k]
        found = policy.first_not_finite(actions.parts[k], role)
        return f"{found} (of the agent '{agent}')" if found and agent else found

    # files ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """See Policy: the shared policy's folder holds those of the others in `agents/`."""
        for agent, policy in self.members.items():
            policy.save(_folder(folder, agent))

    def export(self, folder: Path) -> None:
        """See Policy."""
        for agent, policy in self.members.items():
            policy.export(_folder(folder, agent))

    def load_weights(self, folder: Path) -> None:
        """See Policy."""
        for agent, policy in self.members.items():
            policy.load_weights(_folder(folder, agent))


def members_of(policy: Policy) -> dict[str, Policy]:
    """Agent -> its policy, the empty name having that which is shared; of a single policy itself."""
    return policy.members if isinstance(policy, AgentPolicies) else {"": policy}


def _folder(folder: Path, agent: str) -> Path:
    return folder / FOLDER / agent if agent else folder


def _vocabulary(renderer: Any) -> Any:
    """What texts are made of and put in, for comparing."""
    tokenizer = getattr(renderer, "tokenizer", None)
    if tokenizer is None:
        return type(renderer)
    return tokenizer.get_vocab(), getattr(tokenizer, "chat_template", None), renderer.stop_ids
