"""GHPO's identities (arXiv:2507.10628): whom it helps, and how far."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.ghpo import beginning
from cohort.types import Request
from tests import micro
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.stepping import run_of, sample

WORTH = st.lists(st.lists(st.sampled_from([0.0, 0.0, 1.0]), min_size=3, max_size=3), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None)
@given(by_stage=WORTH)
def test_a_group_is_redrawn_exactly_where_all_before_it_failed(by_stage: list[list[float]]) -> None:
    sampler = FakeSampler(lambda r: by_stage[r.meta.get("hint_stage", 0)][r.meta["place"]])
    asked = requests_of(1, 3, solution=["abcdefgh"])
    (members,) = guided(registry.method("ghpo"), asked, sampler).values()
    stage = members[0].request.meta.get("hint_stage", 0)
    assert {r.request.meta.get("hint_stage", 0) for r in members} == {stage}
    assert not any(any(row) for row in by_stage[:stage])
    assert any(by_stage[stage]) or stage == 3
    assert len(sampler.drawn) == 3 * (stage + 1)
    assert [r.reward for r in members] == by_stage[stage]
    if stage:
        assert text_of(members[0].request).endswith("abcdefgh"[: 2 * stage])
    # Noise of its own for every draw.
    assert len({r.seed for r in sampler.drawn}) == len(sampler.drawn)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(0, 3000), low=st.floats(0, 1), high=st.floats(0, 1))
def test_more_is_shown_at_a_higher_ratio_and_at_most_everything(length: int, low: float, high: float) -> None:
    text = "x" * length
    low, high = sorted((low, high))
    assert len(beginning(text, low)) <= len(beginning(text, high)) <= length
    assert text.startswith(beginning(text, high))


def test_before_its_first_step_and_where_all_is_solved_it_is_grpo() -> None:
    for worth, how, step in ((0.0, {"start_hint_step": 3}, 2), (1.0, {}, 0)):
        sampler = FakeSampler(lambda r, worth=worth: worth, step=step)
        asked = requests_of(2, 2, solution=["ab", "cd"])
        guided(registry.method("ghpo", **how), asked, sampler)
        assert sampler.drawn == asked


def test_a_prompt_without_a_solution_is_drawn_again_as_it_is() -> None:
    sampler = FakeSampler(lambda r: 0.0)
    guided(registry.method("ghpo"), requests_of(1, 2, solution=[""]), sampler)
    assert {text_of(request) for request in sampler.drawn} == {"<0>"}


def test_a_beginning_too_long_for_the_model_is_cut_from_the_left() -> None:
    long = "".join(str(i % 10) for i in range(400))
    sampler = FakeSampler(lambda r: 0.0, context_length=200)
    guided(registry.method("ghpo"), requests_of(1, 2, solution=[long]), sampler)
    shown: list[Request] = sampler.drawn[2:]
    assert all(len(request.context) + request.max_new_tokens == 200 for request in shown)
    assert [text_of(request)[-4:] for request in shown[::2]] == [long[:n][-4:] for n in (100, 200, 300)]


@pytest.mark.parametrize("ratios", [(), (0.5, 0.25), (0.0, 0.5), (0.5, 1.5)])
def test_ratios_that_are_none_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(MethodError, match="rising shares"):
        registry.method("ghpo", ratios=ratios)


def test_what_is_trained_on_is_what_was_drawn(micro_root: Path) -> None:
    """The engine's log-probabilities are those of the trainer, behind the prompt with the solution's beginning."""
    with micro.ready(micro_root, "ghpo(ratios=(0.6,))", group_size=2, steps=10) as (setup, optimizer, progress):
        rollouts, _, _ = sample(run_of(setup, optimizer, progress))
        hinted = [r for r in rollouts if r.request.meta.get("hint_stage")]
        assert 0 < len(hinted) < len(rollouts) == 16
        assert all(r.request.context.tokens != r.prompt.tokens for r in hinted)
        results = micro.train(setup, optimizer, progress)
    assert max(step.metrics["mismatch_max"] for step in results) < 1e-4
