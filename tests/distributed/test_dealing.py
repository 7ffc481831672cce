"""Rows are dealt to ranks by their tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort.distributed.dealing import deal, lengths_of
from cohort.policies.agents import AgentActions
from cohort.policies.sequences import Sequences


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 6))
def test_every_row_has_one_share_and_none_has_much_more_than_another(lengths: list[int], count: int) -> None:
    shares = deal(lengths, count)
    assert torch.cat(shares).tolist() == list(range(len(lengths)))
    # A row without tokens takes as much as one with a single token; half of a row may lie over each end of a share.
    counted = [max(1, length) for length in lengths]
    tokens = [sum(counted[row] for row in rows.tolist()) for rows in shares]
    assert max(tokens) <= sum(counted) / count + max(counted, default=0)


def test_rows_without_tokens_are_dealt_too() -> None:
    assert [rows.tolist() for rows in deal([0, 0, 0, 0], 2)] == [[0, 1], [2, 3]]
    assert [rows.tolist() for rows in deal([], 2)] == [[], []]
    assert [rows.tolist() for rows in deal([7], 3)] == [[], [0], []]


def test_contexts_count_and_agents_rows_stand_where_they_stood() -> None:
    def made(*lengths: tuple[int, int]) -> Sequences:
        return Sequences(tuple(torch.arange(c) for c, _ in lengths), tuple(torch.arange(n) for _, n in lengths))

    assert lengths_of(made((3, 4), (1, 0))) == [7, 1]
    both = AgentActions(torch.tensor([1, 0, 1]), (made((2, 2)), made((1, 2), (5, 5))))
    assert lengths_of(both) == [3, 4, 10]
