"""What sequences begin with in common, as trees: each of their nodes is a run of tokens that is computed once.

What only one method would need is not here: rollouts of a prompt, the paths of a tree, the turns of an episode, and prompts
with one header are the same to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from cohort.policies.sequences import Piece

# Tokens that a node must save, all sequences that pass through it together: what one more product costs (for a width of 256,
# some 50 tokens).
BRANCH = 64


@dataclass
class Node:
    """A run of tokens that some sequences have in common.

    Attributes:
        piece: one of the sequences; start, stop: of it, context included, the tokens that this node holds.
        members: the sequences that pass through it or end with it, by their places.
        children: what follows it, in the order of their first members.
    """

    piece: int
    start: int
    stop: int
    members: list[int]
    children: list[Node] = field(default_factory=list)

    def __len__(self) -> int:
        return self.stop - self.start


def trees(pieces: Sequence[Piece], own: Mapping[int, Sequence[int]] | None = None) -> list[Node]:
    """The roots of trees of pieces (those without a completion left out), in the order of their first members.

    A sequence is a piece's context and completion but for the last token, which predicts nothing that is asked for. Pieces of
    one context share it; where further tokens are common to some, those are shared if that saves enough of them (`BRANCH`).

    Args:
        own: by piece, places in it (context included) where something of its own is read, whatever its token is.
    """
    some = [i for i, piece in enumerate(pieces) if len(piece.completion)]
    rows = {i: torch.cat([pieces[i].context, pieces[i].completion[:-1]]).numpy() for i in some}
    last = 0
    for i, places in (own or {}).items():
        rows[i][list(places)] = np.arange(last - len(places), last)
        last -= len(places)
    names = {i: pieces[i].context.numpy().tobytes() for i in some}
    # In the order of their tokens, those that begin alike stand together.
    order = sorted(some, key=lambda i: (rows[i].astype(">i8").tobytes(), i))
    common = [_common(rows[a], rows[b]) for a, b in pairwise(order)]

    def below(low: int, high: int, depth: int) -> list[Node]:
        """What follows the first `depth` tokens of the sequences order[low:high]."""
        first = order[low]
        if high - low == 1:
            return [Node(first, depth, len(rows[first]), [first])] if depth < len(rows[first]) else []
        least = min(common[low : high - 1])
        parts = _split(low, high, [place + 1 for place in range(low, high - 1) if common[place] == least])
        context = len(pieces[first].context)
        whole = depth < context <= least and len({names[i] for i in order[low:high]}) == 1
        if not whole and (least - depth) * (high - low - 1) < max(1, BRANCH):
            return [node for part in parts for node in below(*part, depth)]
        following = [node for part in parts for node in below(*part, least)]
        members = sorted(order[low:high])
        if len(following) == 1:
            # All others end here: it goes on with the one that does not.
            (only,) = following
            return [Node(only.piece, depth, only.stop, members, only.children)]
        return [Node(first, depth, least, members, sorted(following, key=lambda node: node.members[0]))]

    return sorted(below(0, len(order), 0) if order else [], key=lambda node: node.members[0])


def _split(low: int, high: int, cuts: list[int]) -> list[tuple[int, int]]:
    return list(zip([low, *cuts], [*cuts, high], strict=True))


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens that two sequences have in common, from the first on."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length


def paths(roots: Sequence[Node]) -> dict[int, list[Node]]:
    """By its place, the nodes of each sequence, from its root on; in the order of the trees."""
    out: dict[int, list[Node]] = {}

    def walk(node: Node, before: list[Node]) -> None:
        here = [*before, node]
        below = {i: child for child in node.children for i in child.members}
        for i in node.members:
            if i not in below:
                out[i] = here
            elif i == below[i].members[0]:
                walk(below[i], here)

    for root in roots:
        walk(root, [])
    return out
