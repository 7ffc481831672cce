"""Who draws what."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from cohort.engine.pool.dealing import Job, Load, deal


def jobs_of(sizes: list[int], *, length: int = 20, tokens: int = 100) -> list[Job[str]]:
    """Groups of so many jobs of one prompt."""
    return [Job(100 * prompt + k, prompt, length, tokens) for prompt, size in enumerate(sizes) for k in range(size)]


def loads_of(names: str, room: int = 64) -> dict[str, Load]:
    return {name: Load(room, 0.0, set()) for name in names}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    rooms=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    length=st.integers(0, 4000),
)
def test_every_job_is_given_once_as_far_as_there_is_room(sizes: list[int], rooms: list[int], length: int) -> None:
    jobs = jobs_of(sizes, length=length)
    loads = {str(at): Load(room, 0.0, set()) for at, room in enumerate(rooms)}
    given_ = deal(jobs, loads)
    numbers = [number for _, number in given_]
    assert len(numbers) == len(set(numbers)) == min(len(jobs), sum(rooms))
    assert set(numbers) <= {job.number for job in jobs}
    assert all(load.room >= 0 for load in loads.values())


def test_groups_stay_together_where_that_is_level() -> None:
    given_ = deal(jobs_of([8, 8, 8, 8]), loads_of("ab"))
    where = defaultdict(set)
    for who, number in given_:
        where[number // 100].add(who)
    assert all(len(members) == 1 for members in where.values())
    assert sorted(who for who, _ in given_) == ["a"] * 16 + ["b"] * 16


def test_a_large_group_is_shared_out() -> None:
    given_ = deal(jobs_of([16]), loads_of("ab"))
    assert sorted(who for who, _ in given_) == ["a"] * 8 + ["b"] * 8


def test_three_groups_are_level_over_two() -> None:
    counts = [who for who, _ in deal(jobs_of([8, 8, 8]), loads_of("ab"))]
    assert abs(counts.count("a") - counts.count("b")) <= 1


def test_a_later_turn_goes_to_who_keeps_the_earlier_ones() -> None:
    jobs = [Job(0, "p", 20, 100, "b"), Job(1, "p", 20, 100, "gone")]
    loads = {"a": Load(9, 0.0, set()), "b": Load(9, 1000.0, set())}
    assert {number: who for who, number in deal(jobs, loads)} == {0: "b", 1: "a"}
