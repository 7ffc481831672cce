"""Scaf-GRPO's identities (arXiv:2510.19807): the weakest hint that works, and where it stands in the group."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from tests import micro
from tests.golden.adapters.scaf_grpo import scaffolded
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.stepping import run_of, sample

RUNGS = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0]), min_size=12, max_size=12)
GROUP = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0]), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(worth=GROUP, rungs=RUNGS, warmup=st.integers(0, 2))
def test_the_weakest_rung_that_works_replaces_the_first_of_an_unsolved_group(
    worth: list[float], rungs: list[float], warmup: int
) -> None:
    (members,) = scaffolded([worth], [rungs], step=2, warmup_steps=warmup, replace_num=1)
    level = members[0].request.meta.get("hint_level", 0)
    if warmup == 2 or any(worth) or not any(rungs):
        assert [r.reward for r in members] == worth
        assert level == 0
    else:
        assert rungs[level - 1] == 1
        assert not any(rungs[: level - 1])
        assert [r.reward for r in members] == [1.0, *worth[1:]]


@pytest.mark.parametrize(
    ("how", "contexts", "levels"),
    [
        ({}, [True, False, False], [3, 0, 0]),
        ({"replace_hint_prompt": True}, [False, False, False], [3, 0, 0]),
        ({"replace_num": 2}, [True, False, False], [3, 3, 0]),
    ],
)
def test_where_the_hinted_rollout_stands(how: dict[str, bool], contexts: list[bool], levels: list[int]) -> None:
    """(behind the hint, of which rung) of each rollout; what is moved behind the plain prompt has to be scored there."""
    rungs = [0.0, 0.0, 1.0] + [0.0] * 9
    (members,) = scaffolded([[0.0] * 3], [rungs], step=1, warmup_steps=0, **how)
    assert [r.request.context.tokens != r.prompt.tokens for r in members] == contexts
    assert [r.request.meta.get("hint_level", 0) for r in members] == levels
    moved = [level > 0 and not hinted for level, hinted in zip(levels, contexts, strict=True)]
    assert [r.segments[0].logp is None for r in members] == moved


def test_tiers_without_parts_have_no_rungs_and_a_text_is_one_part() -> None:
    sampler = FakeSampler(lambda r: 0.0)
    asked = requests_of(1, 2, knowledge=[[]], planning=["think"], steps=[["one", "two"]])
    guided(registry.method("scaf-grpo", warmup_steps=0, per_tier=2), asked, sampler)
    assert [text_of(r) for r in sampler.drawn[2:]] == [
        "Question: <0>\nPlanning Hints: think",
        "Question: <0>\nPlanning Hints: think",
        "Question: <0>\nSolution Hints: one",
        "Question: <0>\nSolution Hints: one two",
    ]


def test_a_method_without_tiers_and_data_without_hints_are_refused(micro_root: Path) -> None:
    with pytest.raises(MethodError, match="needs a column of hints"):
        registry.method("scaf-grpo", knowledge=None, planning=None, steps=None)
    missing = pytest.raises(UsageError, match="reads the column 'plan', which row 1")
    with missing, micro.ready(micro_root, "scaf-grpo(planning='plan')"):
        pass


def test_what_is_trained_on_is_what_was_drawn(micro_root: Path) -> None:
    how = "scaf-grpo(warmup_steps=0, per_tier=2, replace_num=2)"
    with micro.ready(micro_root, how, group_size=4, steps=10) as (setup, optimizer, progress):
        rollouts, _, _ = sample(run_of(setup, optimizer, progress))
        assert len(rollouts) == 32
        results = micro.train(setup, optimizer, progress)
    hinted = [r for step in results for r in step.rollouts if r.request.meta.get("hint_level")]
    assert hinted
    assert {r.request.context.tokens == r.prompt.tokens for r in hinted} == {True, False}
    assert max(step.metrics["mismatch_max"] for step in results) < 1e-4
    assert all(step.metrics["skipped_updates"] == 0 for step in results)
