"""Token ids to be scored: contexts and completions of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from cohort.types.support import Support


class Piece(NamedTuple):
    """A run of a completion's tokens that have one context.

    Attributes:
        row: of the completion; start: place of the first token in it.
        context, completion: int64 tensors, token ids.
    """

    row: int
    start: int
    context: Tensor
    completion: Tensor

    @property
    def length(self) -> int:
        """Tokens, context included."""
        return len(self.context) + len(self.completion)


@dataclass(frozen=True)
class Sequences:
    """n contexts with a completion each.

    Attributes:
        context: n int64 tensors, what the policy is conditioned on (at least one token each).
        completion: n int64 tensors, the tokens whose log-probabilities are wanted (possibly none).
        support: for each completion what its tokens were drawn over, None for the model's own distribution, as of a text
            that was not sampled; () if that holds for all.
        rebuilt: for each completion (place, context) of the pieces behind its first (see `Context.rebuilt`); () if none has
            any.
    """

    context: tuple[Tensor, ...]
    completion: tuple[Tensor, ...]
    support: tuple[Support | None, ...] = ()
    rebuilt: tuple[tuple[tuple[int, Tensor], ...], ...] = ()

    def __len__(self) -> int:
        return len(self.context)

    @cached_property
    def pieces(self) -> list[Piece]:
        """The pieces of all completions, row by row."""
        out = []
        for i, (context, completion) in enumerate(zip(self.context, self.completion, strict=True)):
            later = [piece for piece in self.rebuilt[i] if piece[0] < len(completion)] if self.rebuilt else []
            starts = [(0, context), *later]
            ends = [start for start, _ in later] + [len(completion)]
            out += [
                Piece(i, start, own, completion[start:end])
                for (start, own), end in zip(starts, ends, strict=True)
                if start < end or not len(completion)
            ]
        return out

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, with those of all its contexts."""
        out = [0] * len(self)
        for piece in self.pieces:
            out[piece.row] += piece.length
        return out

    def select(self, rows: Tensor) -> Sequences:
        """The sequences at `rows` [n] int64."""
        picked = rows.tolist()
        return Sequences(
            tuple(self.context[i] for i in picked),
            tuple(self.completion[i] for i in picked),
            tuple(self.support[i] for i in picked) if self.support else (),
            tuple(self.rebuilt[i] for i in picked) if self.rebuilt else (),
        )

    def in_contexts(self, contexts: Sequence[Tensor]) -> Sequences:
        """The same completions, each in another context: n int64 tensors. A later piece whose context begins with the first
        one's begins with the other one instead; a piece that shows another conversation stays as it is."""
        rebuilt = tuple(
            tuple((place, _begun(later, own, other)) for place, later in pieces)
            for pieces, own, other in zip(self.rebuilt, self.context, contexts, strict=False)
        )
        return replace(self, context=tuple(contexts), rebuilt=rebuilt)

    def __add__(self, other: Sequences) -> Sequences:
        """Both, one after the other."""
        both = (self, other)
        support = [(None,) * len(each) if not each.support else each.support for each in both]
        rebuilt = [((),) * len(each) if not each.rebuilt else each.rebuilt for each in both]
        return Sequences(
            self.context + other.context,
            self.completion + other.completion,
            support[0] + support[1],
            rebuilt[0] + rebuilt[1] if any(rebuilt[0] + rebuilt[1]) else (),
        )

    def split(self, max_tokens: int) -> list[Sequences]:
        """Parts of at most `max_tokens` padded tokens, at least one piece each: the same rows, with some of the pieces."""
        out: list[list[Piece]] = []
        for piece in self.pieces:
            longest = max([piece.length, *(each.length for each in out[-1])]) if out else 0
            if out and longest * (len(out[-1]) + 1) <= max_tokens:
                out[-1].append(piece)
            else:
                out.append([piece])
        return [self._with_pieces(pieces) for pieces in out] if len(out) > 1 else [self]

    def _with_pieces(self, pieces: list[Piece]) -> Sequences:
        part = replace(self)
        vars(part)["pieces"] = pieces
        return part

    def micro_batches(self, max_tokens: int) -> list[Tensor]:
        """Rows [n] int64 of micro-batches of at most `max_tokens` padded tokens (at least one sequence each).

        Sequences of similar length go together, so that little of a micro-batch is padding.
        """
        longest, count = [0] * len(self), [0] * len(self)
        for piece in self.pieces:
            longest[piece.row] = max(longest[piece.row], piece.length)
            count[piece.row] += 1
        order = sorted(range(len(self)), key=lambda i: (-longest[i], i))
        out: list[list[int]] = []
        held = 0
        for i in order:
            # The first sequence of a micro-batch has its longest piece.
            held += count[i]
            if out and longest[out[-1][0]] * held <= max_tokens:
                out[-1].append(i)
            else:
                out.append([i])
                held = count[i]
        return [torch.tensor(rows) for rows in out]


def _begun(later: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """A context that begins with `own`, with `other` in place of that; any other as it is."""
    same = len(own) <= len(later) and torch.equal(later[: len(own)], own)
    return torch.cat([other, later[len(own) :]]) if same else later
