"""Packing token sequences into rows that hold once what they begin with in common."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cohort.devices import to_device
from cohort.policies.attention import Layout, Range, Share
from cohort.policies.sequences import Sequences
from cohort.policies.trees import Node, paths, trees
from cohort.types.soft import Mixer, SoftStep


class SoftInput(NamedTuple):
    """A soft step that is read: its place in a row; its piece, and where in it, context included; the step itself."""

    place: int
    piece: int
    at: int
    step: SoftStep
    mixer: Mixer


@dataclass(frozen=True)
class Packed:
    """n sequences in one row without padding.

    Attributes:
        ids: [N] token ids; layout: how the row is made up.
        source: [M] place in the row whose hidden state predicts each completion token.
        row, column: [M] where that token stands in a padded [n, T] result.
        piece, place: [M] of which piece it is, and where in it, context included, the token before it stands.
        tokens: [M] the completion tokens themselves.
        soft: the steps that are read as mixtures of tokens.
    """

    ids: Tensor
    layout: Layout
    source: Tensor
    row: Tensor
    column: Tensor
    piece: Tensor
    place: Tensor
    tokens: Tensor
    soft: tuple[SoftInput, ...] = ()

    def padded(self, flat: Tensor, count: int, width: int) -> Tensor:
        """[count, width, ...] of values [M, ...] of the completion tokens; 0 elsewhere."""
        out = flat.new_zeros(count, width, *flat.shape[1:])
        return out.index_put((self.row, self.column), flat)


def _soft(sequences: Sequences) -> dict[int, dict[int, tuple[SoftStep, Mixer]]]:
    """By piece and by place in it, context included, the soft steps that other tokens follow."""
    out: dict[int, dict[int, tuple[SoftStep, Mixer]]] = {}
    for i, piece in enumerate(sequences.pieces):
        support = sequences.support[piece.row] if sequences.support else None
        if support is None or support.mixer is None:
            continue
        for at in range(len(piece.completion) - 1):
            step = support.soft_step(piece.start + at)
            if step is not None:
                out.setdefault(i, {})[len(piece.context) + at] = step
    return out


def _trees(sequences: Sequences) -> list[Node]:
    return trees(sequences.pieces, {i: list(steps) for i, steps in _soft(sequences).items()})


def pack(sequences: Sequences, device: torch.device) -> Packed:
    """The sequences in one row: what several begin with, then what follows it in each (see `trees`).

    The last token of a piece predicts nothing that is asked for, and is left out of the row.
    """
    pieces = sequences.pieces
    roots = _trees(sequences)
    shares, where = _lay(roots)
    if not roots:
        none = torch.empty(0, dtype=torch.int64, device=device)
        return Packed(none, Layout((), device), none, none, none, none, none, none)
    total = shares[-1].end
    ids = torch.empty(total, dtype=torch.int64)
    source, index, tokens = [], [], []
    steps, soft = _soft(sequences), []
    for i, nodes in paths(roots).items():
        context, completion = pieces[i].context, pieces[i].completion
        length = len(context) + len(completion) - 1
        places = torch.cat([torch.arange(len(node)) + where[id(node)] for node in nodes])[:length]
        ids[places] = torch.cat([context, completion[:-1]])
        soft += [SoftInput(int(places[at]), i, at, *step) for at, step in steps.get(i, {}).items()]
        column = torch.arange(len(completion))
        source.append(places[len(context) - 1 :])
        row, which = torch.full_like(column, pieces[i].row), torch.full_like(column, i)
        index.append((row, pieces[i].start + column, which, len(context) - 1 + column))
        tokens.append(completion)
    rows, columns, which, before = (to_device(torch.cat(each), device) for each in zip(*index, strict=True))
    return Packed(
        to_device(ids, device),
        Layout(tuple(shares), device),
        to_device(torch.cat(source), device),
        rows,
        columns,
        which,
        before,
        to_device(torch.cat(tokens), device),
        tuple(soft),
    )


def _lay(roots: list[Node]) -> tuple[list[Share], dict[int, int]]:
    """The nodes of trees in a row, and by their identity where each begins: a root and its children, then in turn the children
    of each."""
    shares: list[Share] = []
    where: dict[int, int] = {}
    at = 0
    for root in roots:
        where[id(root)] = at
        # Nodes whose children are to be laid, with the stretches of the row up to their own ends.
        open_: list[tuple[Node, tuple[Range, ...]]] = [(root, ((at, at + len(root)),))]
        first = True
        while open_:
            node, seen = open_.pop(0)
            suffixes = tuple(map(len, node.children))
            if not first and not suffixes:
                continue
            share = Share(at, len(node), suffixes) if first else Share(at, 0, suffixes, seen)
            shares.append(share)
            place, first = share.middle, False
            for child in node.children:
                where[id(child)] = place
                (begin, end), stop = seen[-1], place + len(child)
                joined = (*seen[:-1], (begin, stop)) if end == place else (*seen, (place, stop))
                open_.append((child, joined))
                place = stop
            at = share.end
    return shares, where


# What a shared prefix costs by itself in a layer, forward and backward, in seconds, and what a processor does in one.
SHARE_SECONDS = 1.5e-3
OPERATIONS = 1.5e11


def pays(sequences: Sequences, hidden: int) -> bool:
    """True if sharing contexts saves more than it costs: not for a few tokens of many prompts and a small model.

    Args:
        hidden: width of the model; a token takes some 72 times its square of operations in a layer, forward and backward.
    """
    pieces = sequences.pieces
    padded = max((piece.length for piece in pieces), default=0) * len(pieces)
    roots = _trees(sequences)
    shares, _ = _lay(roots)
    held = (shares[-1].end if shares else 0) + len(pieces)
    saved = (padded - held) * 72 * hidden**2 / OPERATIONS
    return saved > len(shares) * SHARE_SECONDS


def packs(sequences: Sequences, max_tokens: int) -> list[Tensor]:
    """Rows [n] int64 of packs of at most `max_tokens` tokens each (at least one sequence), or three times what it shares with
    others if that is more, what is shared counted once.

    Sequences that begin alike stay together as far as the budget allows.
    """
    pieces = sequences.pieces
    # Of each row, the nodes of its pieces and its first one's root; in the order of the trees, rows of no tokens last.
    nodes: dict[int, dict[int, Node]] = {}
    root: dict[int, int] = {}
    for i, path in paths(_trees(sequences)).items():
        nodes.setdefault(pieces[i].row, {}).update((id(node), node) for node in path)
        root.setdefault(pieces[i].row, id(path[0]))
    # Of each piece the last token, which no node has.
    ends = Counter(piece.row for piece in pieces if len(piece.completion))
    whole: dict[int, dict[int, int]] = {}
    for i, own in nodes.items():
        whole.setdefault(root[i], {}).update((name, len(node)) for name, node in own.items())
    last = Counter(root[i] for i in nodes for _ in range(ends[i]))

    out: list[list[int]] = []
    held: set[int] = set()
    room, fits, now = 0, False, -1
    for i, own in nodes.items():
        if root[i] != now:
            now = root[i]
            fits = bool(out) and sum(whole[now].values()) + last[now] <= room
        cost = sum(len(node) for name, node in own.items() if name not in held) + ends[i]
        if fits or (cost <= room and not held.isdisjoint(own)):
            out[-1].append(i)
            room -= cost
        else:
            out.append([i])
            held = set()
            # What is long and shared is not computed again for each few sequences: beside it there is room for twice as much.
            length = sum(len(node) for node in own.values() if len(node.members) > 1)
            room = max(max_tokens - length, 2 * length) - sum(map(len, own.values())) - ends[i] + length
        held.update(own)
    none = [i for i in range(len(sequences)) if i not in nodes]
    if none:
        out = [*out[:-1], [*out[-1], *none]] if out else [none]
    return [torch.tensor(rows) for rows in out]
