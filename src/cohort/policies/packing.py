"""Packing token sequences into rows that hold every shared context once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.policies.attention import Layout, Share
from cohort.policies.sequences import Sequences


@dataclass(frozen=True)
class Packed:
    """n sequences in one row without padding.

    Attributes:
        ids: [N] token ids; layout: how the row is made up.
        source: [M] place in the row whose hidden state predicts each completion token.
        row, column: [M] where that token stands in a padded [n, T] result.
        tokens: [M] the completion tokens themselves.
    """

    ids: Tensor
    layout: Layout
    source: Tensor
    row: Tensor
    column: Tensor
    tokens: Tensor

    def padded(self, flat: Tensor, count: int, width: int) -> Tensor:
        """[count, width, ...] of values [M, ...] of the completion tokens; 0 elsewhere."""
        out = flat.new_zeros(count, width, *flat.shape[1:])
        return out.index_put((self.row, self.column), flat)


def shared(sequences: Sequences) -> list[list[int]]:
    """Rows of sequences with the same context, in order of first appearance."""
    found: dict[bytes, list[int]] = {}
    for i, context in enumerate(sequences.context):
        found.setdefault(context.numpy().tobytes(), []).append(i)
    return list(found.values())


def pack(sequences: Sequences, device: torch.device) -> Packed:
    """The sequences in one row: each distinct context, then the completions that follow it.

    The last token of a completion predicts nothing that is asked for, and is left out of the row.
    """
    ids: list[Tensor] = []
    shares: list[Share] = []
    source: list[Tensor] = []
    row: list[Tensor] = []
    column: list[Tensor] = []
    tokens: list[Tensor] = []
    at = 0
    for members in shared(sequences):
        members = [i for i in members if len(sequences.completion[i])]
        if not members:
            continue
        context = sequences.context[members[0]]
        ids.append(context)
        last = at + len(context) - 1
        place = last + 1
        for i in members:
            completion = sequences.completion[i]
            count = len(completion) - 1
            ids.append(completion[:-1])
            source.append(torch.cat([torch.tensor([last]), torch.arange(place, place + count)]))
            row.append(torch.full((count + 1,), i))
            column.append(torch.arange(count + 1))
            tokens.append(completion)
            place += count
        shares.append(Share(at, len(context), tuple(len(sequences.completion[i]) - 1 for i in members)))
        at = place
    if not ids:
        none = torch.empty(0, dtype=torch.int64, device=device)
        return Packed(none, Layout((), device), none, none, none, none)
    return Packed(
        torch.cat(ids).to(device),
        Layout(tuple(shares), device),
        torch.cat(source).to(device),
        torch.cat(row).to(device),
        torch.cat(column).to(device),
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
    members = shared(sequences)
    lengths = sequences.lengths
    padded = max(lengths, default=0) * len(lengths)
    held = sum(len(sequences.context[rows[0]]) for rows in members) + sum(map(len, sequences.completion))
    saved = (padded - held) * 72 * hidden**2 / OPERATIONS
    return saved > len(members) * SHARE_SECONDS


def packs(sequences: Sequences, max_tokens: int) -> list[Tensor]:
    """Rows [n] int64 of packs of at most `max_tokens` tokens each (at least one sequence), or three times its context if that
    is more, a shared context counted once.

    Rollouts of a context stay together as far as the budget allows.
    """
    out: list[list[int]] = []
    room = 0
    for members in shared(sequences):
        length = len(sequences.context[members[0]])
        whole = length + sum(len(sequences.completion[i]) for i in members)
        open_ = bool(out) and whole <= room
        for i in members:
            own = len(sequences.completion[i])
            if open_ or (out and out[-1] and out[-1][-1] in members and own <= room):
                cost = own + (length if not out[-1] or out[-1][-1] not in members else 0)
                out[-1].append(i)
                room -= cost
            else:
                out.append([i])
                # A long context is not computed again for each few rollouts: beside it there is room for twice as much.
                room = max(max_tokens - length, 2 * length) - own
    return [torch.tensor(rows) for rows in out]
