"""iGRPO's identities (arXiv:2602.09000): what becomes of drafts, and that the second stage learns."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.igrpo import split
from tests import micro
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.stepping import run_of, sample


@settings(max_examples=25, deadline=None)
@given(total=st.integers(1, 50), drafts=st.none() | st.integers(0, 60))
def test_the_budget_is_that_of_grpo_and_leaves_a_refinement(total: int, drafts: int | None) -> None:
    first, second = split(total, drafts)
    assert first + second == total
    assert second >= 1
    assert first >= 0


@settings(max_examples=25, deadline=None)
@given(worth=st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=6, max_size=6))
def test_the_first_of_the_best_drafts_is_shown_and_none_is_trained_on(worth: list[float]) -> None:
    sampler = FakeSampler(lambda r: worth[r.meta["place"]], says=lambda r: f"[draft {r.meta['place']}]")
    (members,) = guided(registry.method("igrpo"), requests_of(1, 6), sampler).values()
    assert [r.request.meta["place"] for r in members] == [3, 4, 5]
    best = worth.index(max(worth[:3]))
    assert all(f"[draft {best}]" in text_of(r.request) for r in members)


def test_without_a_draft_it_is_grpo() -> None:
    asked = requests_of(2, 4)
    sampler = FakeSampler(lambda r: 1.0)
    guided(registry.method("igrpo", drafts=0), asked, sampler)
    assert sampler.drawn == asked
    # An empty draft leaves the prompt as it is.
    sampler = FakeSampler(lambda r: 1.0, says=lambda r: "")
    guided(registry.method("igrpo"), asked, sampler)
    assert [r.context for r in sampler.drawn[4:]] == [r.context for r in asked[2:4] + asked[6:]]


def test_the_second_stage_learns_behind_the_draft(micro_root: Path, tmp_path: Path) -> None:
    """The same digit is right for every letter, since the micro task's policy never learnt to find a letter in a text."""
    (tmp_path / "three.py").write_text(
        "def three(completions, **columns):\n    return [float(text.strip() == '3') for text in completions]\n"
    )
    reward = [f"{tmp_path / 'three.py'}:three"]
    with micro.method_ready(micro_root, "igrpo", steps=15, reward=reward) as (setup, optimizer, progress):
        rollouts, _, _ = sample(run_of(setup, optimizer, progress))
        assert len(rollouts) == 8 * 8
        assert all(r.request.context.tokens != r.prompt.tokens for r in rollouts)
        results = micro.train(setup, optimizer, progress)
    earned = [step.metrics["reward/mean"] for step in results]
    assert max(step.metrics["mismatch_max"] for step in results) < 1e-4
    assert sum(earned[-3:]) / 3 - sum(earned[:3]) / 3 > 0.3, earned
