"""The types of a policy: the loop, sources, engines and rollouts know that it has actions, and how likely each is.

A policy may be a language model over tokens, a flow model over denoising steps, or a table over three moves. What it does
with texts, if there are any, is its renderer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from cohort.types.rollout import Message, Prompt, Rollout
from cohort.types.support import Support


class Actions(Protocol):
    """The actions of n rollouts, each row of them in a context of its own; made by a policy, and read by it alone."""

    def __len__(self) -> int:
        """n."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The actions at `rows` [m] int64."""
        ...

    def in_contexts(self, contexts: Sequence[Tensor]) -> Self:
        """The same actions, row i in the context `contexts[i]` [C_i] int64; so are later pieces that begin with the first
        one's context."""
        ...

    def __add__(self, other: Self) -> Self:
        """Both, one after the other."""
        ...


class Renderer(Protocol):
    """Turns texts into actions of a policy and back: its tokenizer, its chat template, tools and media.

    Attributes:
        context_length: most actions of context and rollout together; None if there is no limit.
        told_rewriting: it was said that the chat template rewrites what was said before.
    """

    context_length: int | None
    told_rewriting: bool

    @property
    def stop_ids(self) -> frozenset[int]:
        """Actions that end a rollout."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Actions that `decode` leaves out."""
        ...

    @property
    def pieces(self) -> Callable[[Sequence[int]], list[str]] | None:
        """Actions of one rollout -> the text of each by itself; None if they have no texts."""
        ...

    def prompt(
        self, source: str | list[Message], system: str | None = None, tools: Sequence[Any] = ()
    ) -> tuple[str, tuple[int, ...]]:
        """(text, context) of messages or of a plain text, which a system message and schemas of tools may go before.

        Media, where a policy takes any, stand in the messages: `{"role": "user", "content": [{"type": "image", ...}]}`.

        Raises:
            UsageError: it cannot be put so, as media to a policy that reads none.
        """
        ...

    def offer(
        self, source: str | list[Message], system: str | None, tools: Sequence[Any]
    ) -> tuple[str | list[Message], str | None, Sequence[Any]]:
        """What `prompt` is given to show functions that the policy may call, so that it is told of them in any case."""
        ...

    def encode(self, text: str, *, start: bool = False, templated: bool | None = None) -> tuple[int, ...]:
        """A text as actions, as it stands behind others; with `start`, as the beginning of a context.

        Args:
            templated: a chat template made the text; None: if there is one.

        Raises:
            UsageError: there are no actions for it.
        """
        ...

    def encode_completion(self, prompt: Prompt | None, text: str, *, end: bool = False) -> tuple[int, ...]:
        """A text as actions behind a prompt; with `end`, and what ends a rollout after it."""
        ...

    def answer(
        self, prompt: Prompt, said: str | Sequence[Message], last: int | None = None, tools: Sequence[Any] = ()
    ) -> tuple[int, ...]:
        """The messages of others that follow the policy's turn, up to the policy's next turn, as actions.

        Args:
            prompt: what the conversation began with.
            last: the last action of the turn, which may have ended it already.

        Raises:
            UsageError: it cannot be put so.
        """
        ...

    def written(
        self, prompt: Prompt, messages: Sequence[Message], tools: Sequence[Any] = (), *, new: int = 0
    ) -> str | None:
        """A whole conversation as the chat template writes it, up to where the policy speaks; None where none does.

        Args:
            prompt: what the conversation began with.
            new: of the messages, the last ones that must stand in the text.

        Raises:
            UsageError: the template refuses the messages, or leaves out a new one.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Actions of a rollout as text."""
        ...

    @property
    def writes_calls(self) -> bool:
        """True if the chat template writes tool calls; otherwise they stand in the text of messages."""
        ...

    @property
    def spell(self) -> Callable[[Sequence[int]], str]:
        """Actions -> their text as it stands behind others, with that of `special_ids`."""
        ...

    def message(self, text: str, tools: Sequence[Any] = (), before: str = "") -> Message:
        """The text of a turn as a message of the assistant's, with `tool_calls`, and `call_errors` for broken ones.

        Args:
            tools: schemas of the functions that can be called.
            before: what the policy was shown.
        """
        ...


class Roles(Protocol):
    """The models in roles in addition to the policy; see `cohort.policies.roles`."""

    def make(self, role: str, **how: Any) -> None:
        """Have a model play a role ("reference", "ema", "old", "critic", "target", "teacher") from now on.

        Args:
            how: what the role's rule says otherwise.
        """
        ...

    def playing(self, role: str) -> AbstractContextManager[Any]:
        """The model that plays a role.

        Raises:
            RuntimeError: none was made.
        """
        ...

    def trained(self) -> list[torch.nn.Parameter]:
        """Parameters that are trained in addition to the policy's own."""
        ...

    def move(self, updates: int) -> None:
        """Move the models that follow another one (ema, old, target), after the update with this number."""
        ...

    def following(self) -> Iterator[torch.nn.Module]:
        """Models that move without being trained."""
        ...

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """role -> weights, for a checkpoint; without those that are made anew when a run begins."""
        ...

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError: a role is missing.
        """
        ...


class Policy(Protocol):
    """The model that is trained.

    Attributes:
        name: of the model, for messages; may be empty.
        halved: micro-batches are half as large as asked for, since memory ran out.
    """

    name: str
    halved: bool

    @property
    def renderer(self) -> Renderer:
        """Turns texts into its actions, and back."""
        ...

    @property
    def roles(self) -> Roles:
        """The models in other roles: reference, critic, ..."""
        ...

    @property
    def model(self) -> Any:
        """The module whose parameters are trained, or some of them."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        ...

    @property
    def vocabulary(self) -> int:
        """V, the number of logits of an action; 0 if there are none."""
        ...

    @property
    def pass_tokens(self) -> int:
        """Actions of a forward pass with gradient that are best done together on its device."""
        ...

    def actions(self, rollouts: Sequence[Rollout]) -> Actions:
        """The actions of n rollouts, in their contexts, over what they were drawn over."""
        ...

    def actions_after(
        self, contexts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], support: Sequence[Support | None] = ()
    ) -> Actions:
        """Actions in contexts, n of each.

        Args:
            contexts: sequences of actions, or of `Context`, which may have pieces.
            support: of each, what its actions were drawn over; () if all were drawn over everything.
        """
        ...

    def log_probs(
        self,
        actions: Actions,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        """What a model gives to actions, in one forward pass with the gradient that is on.

        Args:
            actions: n rows of them.
            width: T, the number of columns of the result; columns beyond a row's actions are 0.
            temperature: of the distribution, as when sampling.
            want: "logp", "entropy" [n, T] in nats; "values" [n, T] of the critic, before each action; "logits"
                [n, T, V], divided by the temperature; "hidden" [n, T, d], what each action was predicted from.
            role: of the model: "policy", or one that was made.

        Returns:
            name -> tensor, those that are wanted, in float32 (float64 for a float64 model), on the policy's device, in the
            order of the names: the same in every process.

        Raises:
            RuntimeError: no model has the role.
        """
        ...

    def micro_batches(self, actions: Actions, max_tokens: int) -> list[Tensor]:
        """Rows [n] int64 of micro-batches of at most `max_tokens` actions, contexts included (at least one row each)."""
        ...

    def trainable(self) -> list[torch.nn.Parameter]:
        """Its own parameters that are trained; `roles.trained` are others."""
        ...

    def first_not_finite(self, actions: Actions, role: str = "policy") -> str | None:
        """The part of a model that gives NaN or infinity first, for the first row of actions; None if none does."""
        ...

    def save(self, folder: Path) -> None:
        """Write its weights and what belongs to them."""
        ...

    def export(self, folder: Path) -> None:
        """`save` for others to use."""
        ...

    def load_weights(self, folder: Path) -> None:
        """Take over the weights that `save` wrote."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A policy whose model has layers that some methods look into."""

    def hidden_states(self, contexts: Sequence[Sequence[int]], *, layer: int = -1) -> list[Tensor]:
        """[C, d] for each context: the hidden states of a layer at its actions."""
        ...

    def head_weight(self) -> Tensor:
        """Weights [V, d] of the output layer."""
        ...
