"""Packing token sequences into rows that hold every shared context once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.policies.attention import Layout, Share
from cohort.policies.sequences import Piece, Sequences


@dataclass(frozen=True)
class Packed:
    """n sequences in one row without padding.

    Attributes:
        ids: [N] token ids; layout: how the row is made up.
        source: [M] place in the row whose hidden state predicts each completion token.
        row, column: [M] where that token stands in a padded [n, T] result.
        piece, place: [M] of which piece it is, and where in it, context included, the token before it stands.
        tokens: [M] the completion tokens themselves.
    """

    ids: Tensor
    layout: Layout
    source: Tensor
    row: Tensor
    column: Tensor
    piece: Tensor
    place: Tensor
    tokens: Tensor

    def padded(self, flat: Tensor, count: int, width: int) -> Tensor:
        """[count, width, ...] of values [M, ...] of the completion tokens; 0 elsewhere."""
        out = flat.new_zeros(count, width, *flat.shape[1:])
        return out.index_put((self.row, self.column), flat)


def shared(pieces: Sequence[Piece]) -> list[list[int]]:
    """Places of pieces with the same context, in order of first appearance."""
    found: dict[bytes, list[int]] = {}
    for i, piece in enumerate(pieces):
        found.setdefault(piece.context.numpy().tobytes(), []).append(i)
    return list(found.values())


def pack(sequences: Sequences, device: torch.device) -> Packed:
    """The sequences in one row: each distinct context, then the pieces that follow it.

    The last token of a piece predicts nothing that is asked for, and is left out of the row.
    """
    pieces = sequences.pieces
    ids: list[Tensor] = []
    shares: list[Share] = []
    source: list[Tensor] = []
    index: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    tokens: list[Tensor] = []
    at = 0
    for members in shared(pieces):
        members = [i for i in members if len(pieces[i].completion)]
        if not members:
            continue
        context = pieces[members[0]].context
        ids.append(context)
        last = at + len(context) - 1
        place = last + 1
        for i in members:
            completion = pieces[i].completion
            count = len(completion) - 1
            ids.append(completion[:-1])
            source.append(torch.cat([torch.tensor([last]), torch.arange(place, place + count)]))
            column = torch.arange(count + 1)
            row, which = torch.full_like(column, pieces[i].row), torch.full_like(column, i)
            index.append((row, pieces[i].start + column, which, len(context) - 1 + column))
            tokens.append(completion)
            place += count
        shares.append(Share(at, len(context), tuple(len(pieces[i].completion) - 1 for i in members)))
        at = place
    if not ids:
        none = torch.empty(0, dtype=torch.int64, device=device)
        return Packed(none, Layout((), device), none, none, none, none, none, none)
    rows, columns, which, before = (torch.cat(each).to(device) for each in zip(*index, strict=True))
    return Packed(
        torch.cat(ids).to(device),
        Layout(tuple(shares), device),
        torch.cat(source).to(device),
        rows,
        columns,
        which,
        before,
        torch.cat(tokens).to(device),
    )


# What a shared prefix costs by itself in a layer, forward and backward, in seconds, and what a processor does in one.
SHARE_SECONDS = 1.5e-3
OPERATIONS = 1.5e11


def pays(sequences: Sequences, hidden: int) -> bool:
    """True if sharing contexts saves more than it costs: not for a few tokens of many prompts and a small model.

    Args:
        hidden: width of the model; a token takes some 72 times its square of operations in a layer, forward and backward.
    """
    pieces = sequences.pieces
    members = shared(pieces)
    padded = max((piece.length for piece in pieces), default=0) * len(pieces)
    held = sum(len(pieces[same[0]].context) for same in members) + sum(len(piece.completion) for piece in pieces)
    saved = (padded - held) * 72 * hidden**2 / OPERATIONS
    return saved > len(members) * SHARE_SECONDS


def packs(sequences: Sequences, max_tokens: int) -> list[Tensor]:
    """Rows [n] int64 of packs of at most `max_tokens` tokens each (at least one sequence), or three times its context if that
    is more, a shared context counted once.

    Rollouts of a context stay together as far as the budget allows.
    """
    out: list[list[int]] = []
    room = 0
    first = [piece for piece in sequences.pieces if not piece.start]
    lengths = sequences.lengths
    for members in shared(first):
        length = len(first[members[0]].context)
        own_tokens = [lengths[i] - length for i in members]
        open_ = bool(out) and length + sum(own_tokens) <= room
        for i, own in zip(members, own_tokens, strict=True):
            if open_ or (out and out[-1] and out[-1][-1] in members and own <= room):
                cost = own + (length if not out[-1] or out[-1][-1] not in members else 0)
                out[-1].append(i)
                room -= cost
            else:
                out.append([i])
                # A long context is not computed again for each few rollouts: beside it there is room for twice as much.
                room = max(max_tokens - length, 2 * length) - own
    return [torch.tensor(rows) for rows in out]
