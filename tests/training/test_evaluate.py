"""What an evaluation says of graded completions, with intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cohort.training.evaluate import summarise
from cohort.types import Prompt, Request
from tests.helpers import rollout_of


def graded(problem, text, right, *, reward=None, length=3, finished=True, **components):
    prompt = Prompt(f"id {problem}", f"problem {problem}", (1, 2), f"problem {problem}")
    request = Request(prompt, prompt.tokens, 0, 8)
    return rollout_of(request, [5] * length).replace(
        text=text,
        accuracy=float(right),
        reward=float(right) if reward is None else reward,
        status="finished" if finished else "truncated",
        components={"number": float(right), **components},
    )


def test_summarise_counts_problems_not_completions():
    rollouts = [
        graded(1, "1", True),
        graded(1, "2", False),
        graded(1, "1", True),
        graded(1, "1", True),
        graded(2, "7", False),
        graded(2, "8", False),
        graded(2, "8", False),
        graded(2, "9", True),
    ]
    result = summarise(rollouts, 4)
    assert (result.problems, result.samples, result.rollouts) == (2, 4, rollouts)
    assert result.accuracy == result.metrics["pass@1"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert result.metrics["pass@2"] == pytest.approx((1 + 1 / 2) / 2)
    assert result.metrics["pass@4"] == 1.0
    # First pairs: 1 (a tie, the earliest) and 1; 7 (a tie) and 8.
    assert result.metrics["maj@2"] == pytest.approx((1 + 0) / 2)
    assert result.metrics["maj@4"] == pytest.approx((1 + 0) / 2)
    assert "maj@1" not in result.metrics
    assert result.metrics["reward/mean"] == result.metrics["reward/number"] == 0.5


def test_summarise_of_single_completions_has_no_votes():
    result = summarise([graded(1, "1", True), graded(2, "2", False)], 1)
    assert set(result.metrics) == {
        "pass@1",
        "reward/mean",
        "reward/number",
        "completion/length_mean",
        "completion/truncated",
    }
    assert result.accuracy == 0.5


def test_summarise_has_no_votes_where_no_answer_can_be_read():
    result = summarise([graded(1, "none", True), graded(1, "none", True)], 2)
    assert not [name for name in result.metrics if name.startswith("maj@")]
    assert result.metrics["pass@2"] == 1.0


def test_summarise_measures_rewards_lengths_and_truncation():
    rollouts = [
        graded(1, "1", True, reward=1.5, length=2, format=0.5),
        graded(1, "1", True, reward=0.5, length=4, format=None, finished=False),
        graded(2, "1", False, reward=-1.0, length=0, format=None),
        graded(2, "1", False, reward=0.0, length=6, format=None),
    ]
    result = summarise(rollouts, 2)
    assert result.metrics["reward/mean"] == pytest.approx((1.0 - 0.5) / 2)
    assert result.metrics["completion/length_mean"] == 3.0
    assert result.metrics["completion/truncated"] == 0.25
    # Where a reward does not apply it counts for nothing, here for the whole second problem.
    assert result.metrics["reward/format"] == 0.5


def test_every_metric_has_an_interval_around_it_and_goes_into_json():
    rng = np.random.default_rng(0)
    rollouts = [
        graded(p, str(rng.integers(3)), bool(rng.integers(2)), length=int(rng.integers(1, 9)))
        for p in range(20)
        for _ in range(4)
    ]
    result = summarise(rollouts, 4)
    assert set(result.intervals) == set(result.metrics)
    for name, value in result.metrics.items():
        low, high = result.intervals[name]
        assert low - 1e-9 <= value <= high + 1e-9
    stored = json.loads(json.dumps(result.to_dict()))
    assert (stored["problems"], stored["samples"]) == (20, 4)
    low, high = result.intervals["pass@2"]
    assert stored["metrics"]["pass@2"] == {"value": result.metrics["pass@2"], "low": low, "high": high}


def test_what_never_or_always_happened_and_a_single_problem_have_honest_intervals():
    none = summarise([graded(p, "1", False) for p in range(32)], 1)
    # Of 32 problems none: Wilson's interval, 1.96^2 / (32 + 1.96^2).
    assert none.intervals["pass@1"] == pytest.approx((0.0, 0.1072), abs=1e-4)
    assert none.intervals["reward/number"] == none.intervals["pass@1"]
    every = summarise([graded(p, "1", True) for p in range(32) for _ in range(4)], 4)
    assert every.intervals["pass@1"] == pytest.approx((0.8928, 1.0), abs=1e-4)
    one = summarise([graded(1, "1", True), graded(1, "1", False)], 2)
    low, high = one.intervals["pass@1"]
    assert low < 0.1
    assert high > 0.9
    # Of a length nothing is known from one problem, and JSON says so.
    assert all(math.isnan(end) for end in one.intervals["completion/length_mean"])
    stored = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert stored["metrics"]["completion/length_mean"] == {"value": 3.0, "low": None, "high": None}


def test_completions_are_listed_with_what_came_of_them():
    rollouts = [graded(p, text, text == "1", format=None) for p in (1, 2) for text in ("1", "2")]
    found = summarise(rollouts, 2).completions()
    assert [(each["problem"], each["sample"], each["completion"], each["correct"]) for each in found] == [
        (1, 1, "1", True),
        (1, 2, "2", False),
        (2, 1, "1", True),
        (2, 2, "2", False),
    ]
    assert found[0] == {
        "problem": 1,
        "sample": 1,
        "question": "problem 1",
        "answer": None,
        "completion": "1",
        "reward": 1.0,
        "correct": True,
        "reward/number": 1.0,
        "reward/format": None,
        "tokens": 3,
        "finished": True,
    }


def test_more_problems_make_narrower_intervals():
    def width(problems):
        rollouts = [graded(p, "1", p % 2 == 0) for p in range(problems)]
        low, high = summarise(rollouts, 1).intervals["pass@1"]
        return high - low

    assert width(400) < width(100) < width(20)


def unjudged(problem, text="?", **components):
    return graded(problem, text, False).replace(
        reward=math.nan, accuracy=math.nan, components={"number": None, **components}
    )


def test_completions_that_no_reward_applies_to_are_neither_right_nor_wrong():
    rollouts = [
        graded(1, "1", True),
        unjudged(1),
        graded(2, "2", False),
        graded(2, "2", True),
        unjudged(3),
        unjudged(3),
    ]
    result = summarise(rollouts, 2)
    assert result.metrics["pass@1"] == pytest.approx((1 + 1 / 2) / 2)
    # One verdict is not enough for pass@2.
    assert result.metrics["pass@2"] == 1.0
    assert result.metrics["reward/mean"] == pytest.approx((1 + 1 / 2) / 2)
    assert result.unjudged == 3
    assert "3 of 6 completions" in result.note
    assert [each["correct"] for each in result.completions()] == [True, None, False, True, None, None]
    json.dumps(result.to_dict(), allow_nan=False)


def test_an_evaluation_of_which_nothing_is_known_says_so():
    result = summarise([unjudged(1), unjudged(2)], 1)
    assert "pass@1" not in result.metrics
    assert math.isnan(result.accuracy)
    assert result.headline == "accuracy unknown"
    json.dumps([result.to_dict(), result.completions()], allow_nan=False)
