"""Processes that are started again find each other, whatever those before them left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from cohort.distributed.failing import RankLost
from cohort.distributed.meeting import MEETING, name_of_meeting

LIMIT = timedelta(seconds=20)


def test_an_attempt_meets_under_a_name_of_its_own() -> None:
    store = HashStore()
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            # Others first: they read what the attempt before has left, and go on looking.
            come = [pool.submit(name_of_meeting, store, rank, 3, LIMIT) for rank in (2, 1, 0)]
            found = {each.result() for each in come}
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


def test_who_finds_only_an_attempt_that_is_over_does_not_take_it_for_its_own() -> None:
    store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        (name,) = {each.result() for each in [pool.submit(name_of_meeting, store, r, 2, LIMIT) for r in (0, 1)]}
    assert store.get(MEETING).decode() == name
    with pytest.raises(RankLost, match="did not find each other"):
        name_of_meeting(store, 1, 2, timedelta(seconds=0.3))
    with pytest.raises(RankLost, match="the 2 processes"):
        name_of_meeting(store, 0, 2, timedelta(seconds=0.3))
