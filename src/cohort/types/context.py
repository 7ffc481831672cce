"""Contexts: what the actions of a rollout are conditioned on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch
from torch import Tensor


@dataclass(frozen=True)
class Context(Sequence[int]):
    """What a model is conditioned on. Engines encode, and passes pack, what has the same context once.

    As a sequence it is its tokens.

    Attributes:
        tokens: token ids; among them those that stand for media.
        media: images and the like, hashable, in the order of their places.
        rebuilt: (place, context) in the order of the places: from the action at `place` on, that context stands in place
            of this one and of all actions before, as where a chat template rewrites what was said. Each of these runs of
            actions is a piece.
    """

    tokens: tuple[int, ...]
    media: tuple[Hashable, ...] = ()
    rebuilt: tuple[tuple[int, Context], ...] = ()

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[int, ...]: ...

    def __getitem__(self, at: int | slice) -> int | tuple[int, ...]:
        return self.tokens[at]

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[int]:
        return iter(self.tokens)

    @property
    def last(self) -> int:
        """Place at which the last piece begins."""
        return self.rebuilt[-1][0] if self.rebuilt else 0

    def at(self, place: int) -> tuple[int, Context]:
        """(first action, context) of the piece that the action at `place` belongs to."""
        found = (0, self)
        for piece in self.rebuilt:
            found = piece if piece[0] <= place else found
        return found

    def pieces(self, length: int) -> list[tuple[int, int, Context]]:
        """(first action, action behind the last, context) of the pieces of `length` actions; one if there are none."""
        inside = [piece for piece in self.rebuilt if piece[0] < length]
        starts = [(0, self), *inside]
        ends = [start for start, _ in inside] + [length]
        return [
            (start, end, context)
            for (start, context), end in zip(starts, ends, strict=True)
            if start < end or not length
        ]

    def before(self, actions: Sequence[int]) -> tuple[int, ...]:
        """Token ids that the action behind `actions` follows."""
        start, context = self.at(len(actions))
        return (*context.tokens, *actions[start:])

    def until(self, place: int) -> Context:
        """The context of actions that go on at `place`."""
        kept = tuple(piece for piece in self.rebuilt if piece[0] <= place)
        return self if len(kept) == len(self.rebuilt) else replace(self, rebuilt=kept)

    def begun(self, own: tuple[int, ...], other: tuple[int, ...]) -> Context:
        """The context with `other` in place of the tokens `own` that it begins with; itself where it begins otherwise."""
        same = self.tokens[: len(own)] == own
        return replace(self, tokens=(*other, *self.tokens[len(own) :])) if same else self

    def state(self) -> Tensor | dict[str, Any]:
        """As tensors, for a checkpoint; without media."""
        tokens = torch.tensor(self.tokens, dtype=torch.int32)
        if not self.rebuilt:
            return tokens
        return {"tokens": tokens, "rebuilt": [(place, context.state()) for place, context in self.rebuilt]}

    @classmethod
    def of_state(cls, state: Tensor | Mapping[str, Any]) -> Context:
        """The context that `state` gave."""
        if isinstance(state, Tensor):
            return cls(tuple(state.tolist()))
        rebuilt = tuple((place, cls.of_state(own)) for place, own in state["rebuilt"])
        return cls(tuple(state["tokens"].tolist()), rebuilt=rebuilt)
