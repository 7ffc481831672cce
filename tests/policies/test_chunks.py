"""Chunks of a packed row."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.policies.attention import Layout, Share
from cohort.policies.chunks import Chunk, cut


def layouts() -> st.SearchStrategy[Layout]:
    share = st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=4))

    def made(given_: list[tuple[int, list[int]]]) -> Layout:
        at, shares = 0, []
        for length, suffixes in given_:
            shares.append(Share(at, length, tuple(suffixes)))
            at = share_end = shares[-1].end
            # What follows the last suffix.
            before = ((shares[-1].start, shares[-1].middle), (share_end - suffixes[-1], share_end))
            shares.append(Share(at, 0, (1, *suffixes), before))
            at = shares[-1].end
        return Layout(tuple(shares), torch.device("cpu"))

    return st.lists(share, min_size=1, max_size=3).map(made)


def seen_alone(layout: Layout) -> list[set[int]]:
    """Of each place of the row, what it sees of it."""
    out: list[set[int]] = []
    for share in layout.shares:
        prefix = range(share.start, share.middle)
        out += [set(range(share.start, i + 1)) for i in prefix]
        at = share.middle
        for count in share.suffixes:
            far = {place for a, b in share.before for place in range(a, b)}
            out += [{*prefix, *far, *range(at, i + 1)} for i in range(at, at + count)]
            at += count
    return out


def seen_in_chunks(chunks: list[Chunk]) -> list[set[int]]:
    out: list[set[int]] = []
    for chunk in chunks:
        reach = set(range(chunk.start, chunk.stop)).union(*(range(a, b) for a, b in chunk.rest))
        for piece in chunk.pieces:
            assert piece.start == len(out)
            before = {place for a, b in piece.seen for place in range(a, b)}
            # What is not of the chunk itself is supplied.
            assert before <= reach
            at = piece.start
            for count in piece.suffixes:
                out += [{*before, *range(at, i + 1)} for i in range(at, at + count)]
                at += count
        assert len(out) == chunk.stop
    return out


@settings(max_examples=60, deadline=None)
@given(layout=layouts(), size=st.integers(1, 30))
def test_a_chunk_sees_what_its_tokens_see(layout: Layout, size: int) -> None:
    assert seen_in_chunks(cut(layout, size)) == seen_alone(layout)
