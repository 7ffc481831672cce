"""Batches of rewards dealt to several processes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.rewards.dealing import joined, shares
from cohort.rewards.scorer import RewardError, Scorer
from cohort.rewards.spec import parse


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_shares_hold_every_row_once_in_its_order_and_groups_whole(sizes, count):
    prompts = [place for place, size in enumerate(sizes) for _ in range(size)]
    found = shares(prompts, count)
    assert [row for rows in found for row in rows] == list(range(len(prompts)))
    assert 1 <= len(found) <= count
    held = [{prompts[row] for row in rows} for rows in found]
    assert sum(map(len, held)) == len(sizes)
    assert max(map(len, found)) <= len(prompts) / count + max(sizes)


def test_what_one_share_logs_is_missing_in_the_others():
    first = {"values": [1.0], "extra": {"a": ["x"]}, "metrics": {"m": [1.0]}, "notes": ["n"]}
    other = {"values": [0.0, None], "extra": {}, "metrics": {"m": [3.0]}, "notes": ["n"], "failed": {"1": "late"}}
    assert joined([first, other], [1, 2]) == {
        "values": [1.0, 0.0, None],
        "extra": {"a": ["x", None, None]},
        "metrics": {"m": [1.0, 3.0]},
        "notes": ["n"],
        "failed": {2: "late"},
        "changed": [],
    }
    assert joined([first, {"error": "no"}], [1, 1]) == {"error": "no"}


def test_several_workers_give_what_one_gives_from_processes_of_their_own():
    def worked(prompts, completions, log_extra):
        import os

        log_extra("pid", [os.getpid()] * len(completions))
        return [len(c) / (1 + len(set(prompts))) for c in completions]

    prompts = ["a", "a", "b", "b", "c", "c"]
    completions = ["x" * n for n in range(6)]
    specs = [worked, "format:xx"]
    with Scorer(parse(specs), workers=3) as scorer:
        scorer.grade(prompts, completions, None, {})  # starts them
        found = scorer.grade(prompts, completions, None, {})
        pids = found.extra["pid"]
        assert len(set(pids)) == 3
        assert os.getpid() not in pids
        assert pids[0] == pids[1] != pids[2] == pids[3]
    with Scorer(parse(specs)) as scorer:
        alone = scorer.grade(prompts, completions, None, {})
    assert found.components["format"] == alone.components["format"]
    assert found.components["worked"] == [len(c) / 2 for c in completions]  # a share holds one prompt here


def test_a_worker_that_dies_leaves_the_rows_of_the_others():
    def deadly(completions):
        import os

        if "die" in completions:
            os._exit(3)
        return [1.0] * len(completions)

    prompts, completions = ["a", "b", "c", "d"], ["x", "die", "y", "z"]
    with Scorer(parse([deadly]), workers=2, on_error="skip") as scorer:
        found = scorer.grade(prompts, completions, None, {})
        assert found.components["deadly"] == [1.0, None, 1.0, 1.0]
        assert found.failed == {1}
    with Scorer(parse([deadly]), workers=2) as scorer, pytest.raises(RewardError, match="row 2"):
        scorer.grade(prompts, completions, None, {})
