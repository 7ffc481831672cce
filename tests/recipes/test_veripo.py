"""VerIPO's identities (arXiv:2505.19000): its pairs, its phases, and that the loop goes through all of them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.reflection import WRONG, reflected
from cohort.rewards.graded import relative_accuracy
from cohort.signals.phases import phase_at
from cohort.signals.verified import easy_prompts, follows, repeats_itself, verified_pairs
from cohort.training.loop import one_step
from tests import micro
from tests.golden.guided import FakeSampler, requests_of, text_of
from tests.stepping import run_of

FLAGS = st.lists(
    st.tuples(st.integers(0, 3), *[st.sampled_from([0, 1])] * 3, st.integers(0, 9)), min_size=1, max_size=16
)


@given(FLAGS, st.integers(0, 9))
def test_pairs_are_of_one_prompt_and_what_is_preferred_is_sound(rows: list[Any], least: int) -> None:
    group, right, sound, again, length = (torch.tensor(each) for each in zip(*rows, strict=True))
    pairs, reflective = verified_pairs(group, right, sound, again, length, min_length=least)
    good = (right == 1) & (sound == 1) & (again == 0) & (length >= least)
    for pair in pairs:
        assert int(group[pair.chosen]) == int(group[pair.rejected]) == pair.group
        own = good & (group == pair.group)
        assert bool(own[pair.chosen])
        assert not good[pair.rejected]
        assert int(length[pair.chosen]) == int(length[own].max())
        assert (pair.kind == "accuracy") == (right[pair.rejected] == 0)
    assert len({(pair.group, pair.kind) for pair in pairs}) == len(pairs)
    wrong = {int(g) for g in group.unique() if not right[group == g].any()}
    assert {label for label, _ in reflective} == wrong
    assert not wrong & {pair.group for pair in pairs}


@given(st.fractions(0, 2, max_denominator=100))
def test_mean_relative_accuracy_is_1_below_5_percent_and_0_from_a_half_on(error: Fraction) -> None:
    value = relative_accuracy(10 * (1 + error), Fraction(10), strict=True)
    assert (value == 1) == (error < Fraction(1, 20))
    assert (value == 0) == (error >= Fraction(1, 2))


@given(st.lists(st.floats(0, 1) | st.just(1.0) | st.just(math.nan), max_size=12), st.floats(0, 1))
def test_of_solved_prompts_a_share_goes(accuracy: list[float], share: float) -> None:
    easy, count = easy_prompts(torch.tensor(accuracy, dtype=torch.float64), share)
    assert easy.tolist() == [i for i, value in enumerate(accuracy) if value >= 1]
    assert count <= share * len(easy) + 1e-6 < count + 1 + 1e-6


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("<think>2 + 2 = 4</think><answer>4</answer>", True),
        ("<think>2 + 2 = 5</think><answer>4</answer>", False),
        ("<think>it is the cat</think><answer>Cat</answer>", True),
        ("<think>it is the dog</think><answer>cat</answer>", False),
        ("so it is 4: \\boxed{5}", False),
        ("4", True),
        ("", True),
    ],
)
def test_whether_the_answer_follows_from_the_reasoning(text: str, holds: bool) -> None:
    assert follows(text) is holds


def test_what_repeats_itself() -> None:
    assert repeats_itself([1, 2, 3, 4] * 8, 0.5)
    assert not repeats_itself(list(range(32)), 0.0)
    assert not repeats_itself([1, 1, 1, 1], 0.0)


def test_phases_follow_each_other_in_rounds() -> None:
    plan = (("a", 2), ("b", 0), ("c", 1))
    assert [(p.round, p.name, p.place, p.last) for p in (phase_at(step, plan) for step in range(4))] == [
        (0, "a", 0, False),
        (0, "a", 1, True),
        (0, "c", 0, True),
        (1, "a", 0, False),
    ]


def test_a_reflection_goes_on_behind_the_wrong_rollout_and_counts_behind_the_plain_prompt() -> None:
    sampler = FakeSampler(lambda request: 1.0)
    first, second = requests_of(2, 1, answer=["4", None])
    noted = [type(each)(**{**vars(each), "meta": {**each.meta, WRONG: [7, 8, 1]}}) for each in (first, second)]
    drawn = reflected([*noted, first], sampler, answer="answer", phrase="hm")  # type: ignore[arg-type]
    assert [rollout.fields["reflection"] for rollout in drawn] == [1.0, 0.0]
    (asked,) = [request for request in sampler.drawn if WRONG in request.meta]
    assert asked.prefix == (7, 8, *map(ord, "hm"))
    assert "The correct answer is 4." in text_of(asked)
    assert drawn[0].request.context.tokens == first.prompt.tokens
    assert drawn[0].mask == [1, 1, 1]
    assert all(segment.logp is None for segment in drawn[0].segments)


def test_the_loop_goes_from_grpo_to_pairs_and_back(micro_root: Path) -> None:
    """The first step on pairs begins at its reference, where each of them loses log 2; later ones lie below."""
    how = "veripo(format=None, grpo_steps=2, dpo_steps=3, pairs=64, drop_share=1.0)"
    with micro.ready(micro_root, how, group_size=4, steps=8) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        steps = [one_step(run) for _ in range(2)]
        key = next(key for key in progress.states if key.startswith("curriculum/"))
        state = run.progress.states[key]
        assert state["pairs"]
        assert all("ref" in pair for pair in state["pairs"])
        failed, solved = len(state["failed"]), int((state["accuracy"] >= 1).sum())
        steps += [one_step(run) for _ in range(5)]
    drawn = [step.metrics["rollouts/sampled"] for step in steps]
    assert drawn[:2] == [32, 32]
    assert drawn[2] == (4 * min(failed, 8) or 32)
    assert drawn[3:6] == [0, 0, 0]
    losses = [step.metrics["loss/replayed_pairs"] for step in steps[3:6]]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[2] < losses[0]
    assert steps[6].metrics["loss/replayed_pairs"] == 0
    assert int(run.progress.states[key]["dropped"].sum()) == solved


@pytest.mark.parametrize("others", ["dapo(max_rounds=2)", "gspo", "chord", "dr-grpo"])
def test_it_goes_with_others(micro_root: Path, others: str) -> None:
    how = f"veripo(format=None, grpo_steps=1, reflect_steps=1, dpo_steps=1, pairs=8)+{others}"
    pairs = {"pairs": [{"prompt": "a", "chosen": "0", "rejected": "1"}]} if others == "chord" else {}
    with micro.ready(micro_root, how, group_size=4, steps=4, updates=2, **pairs) as (setup, optimizer, progress):
        results = micro.train(setup, optimizer, progress)
    assert all(step.metrics["skipped_updates"] == 0 for step in results)
    assert results[2].metrics["rollouts/sampled"] == 0
    assert results[2].metrics["loss/replayed_pairs"] == pytest.approx(math.log(2), abs=0.05)


def test_reflections_that_pass_become_pairs(micro_root: Path) -> None:
    rows = [{**row, "answer": "x"} for row in micro.ROWS]
    scored = f"{Path(__file__).parent / 'judges.py'}:reflects"
    how = "veripo(format=None, grpo_steps=1, dpo_steps=1, phrase='~')"
    with micro.ready(micro_root, how, data=rows, reward=[scored], group_size=2, steps=3) as (
        setup,
        optimizer,
        progress,
    ):
        run = run_of(setup, optimizer, progress)
        first, second, third = (one_step(run) for _ in range(3))
    assert first.metrics["reward/mean"] == 0
    assert second.metrics["reward/mean"] == 1
    assert second.metrics["rollouts/trained"] == 0
    assert third.metrics["loss/replayed_pairs"] == pytest.approx(math.log(2), abs=1e-6)
    state = next(state for key, state in run.progress.states.items() if key.startswith("curriculum/"))
    assert {pair["kind"] for pair in state["pairs"]} == {"reflection"}


def test_ranges_are_checked() -> None:
    assert registry.method("veripo(reflect_steps=0, dpo_steps=0)").curriculum is not None
