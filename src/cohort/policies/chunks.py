"""A packed row cut into chunks, each in pieces whose queries see the same of the row before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from cohort.policies.attention import Layout, Range, Share


@dataclass(frozen=True)
class Piece:
    """Queries of a chunk that go on from the same place: a stretch of one sequence, or the beginnings of several.

    Attributes:
        start: place of the first in the row.
        suffixes: tokens of each sequence; more than one only where all begin here.
        seen: stretches of the row that all of them see, which make up the sequence before them.
        grid: finds the tokens of each sequence.
    """

    start: int
    suffixes: tuple[int, ...]
    seen: tuple[Range, ...]
    grid: Layout = field(compare=False, repr=False)

    @property
    def length(self) -> int:
        return sum(self.suffixes)


@dataclass(frozen=True)
class Chunk:
    """Places `start` to `stop` of a row, in pieces that follow each other."""

    start: int
    stop: int
    pieces: tuple[Piece, ...]

    @property
    def rest(self) -> tuple[Range, ...]:
        """Stretches of the row before the chunk that its queries see."""
        clipped = ((a, min(b, self.start)) for piece in self.pieces for a, b in piece.seen)
        return tuple(dict.fromkeys((a, b) for a, b in clipped if a < b))


def cut(layout: Layout, size: int) -> list[Chunk]:
    """The row in chunks of at most `size` tokens."""
    total = layout.shares[-1].end if layout.shares else 0
    out = []
    for start in range(0, total, size):
        stop = min(start + size, total)
        pieces = [piece for share in layout.shares for piece in _pieces(share, start, stop, layout.device)]
        out.append(Chunk(start, stop, tuple(pieces)))
    return out


def _pieces(share: Share, start: int, stop: int, device: torch.device) -> Iterator[Piece]:
    if share.end <= start or stop <= share.start:
        return

    def piece(at: int, suffixes: Sequence[int], *seen: Range) -> Piece:
        lengths = tuple(suffixes)
        return Piece(at, lengths, tuple((a, b) for a, b in seen if a < b), Layout((Share(0, 0, lengths),), device))

    first, last = max(start, share.start), min(stop, share.end if share.alone else share.middle)
    if first < last:
        yield piece(first, [last - first], (share.start, first))
    fresh: list[int] = []
    at = began = share.middle
    for count in () if share.alone else share.suffixes:
        first, last = max(start, at), min(stop, at + count)
        if first < last and first > at:
            yield piece(first, [last - first], *share.seen, (at, first))
        elif first < last:
            began = began if fresh else first
            fresh.append(last - first)
        at += count
    if fresh:
        yield piece(began, fresh, *share.seen)
