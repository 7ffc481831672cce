"""What the line of a step shows."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from cohort.training.config import make_config
from cohort.training.display import Display, step_values
from cohort.training.verdict import verdict_name
from cohort.types import Prompt
from tests.helpers import request_of, rollout_of

METRICS = {
    "reward/mean": 1.2,
    "reward/math": 0.5,
    "reward/form": 0.7,
    "accuracy": 0.5,
    "entropy": 0.3,
    "loss": 0.6,
    "margin": 2.0,
    "kl": math.nan,
}


def test_several_rewards_stand_apart_and_a_single_one_does_not_twice() -> None:
    shown = step_values(METRICS, rewards=["math", "form"], verdict="accuracy", drawn=True)
    assert shown == {"reward": 1.2, "math": 0.5, "form": 0.7, "accuracy": 0.5, "entropy": 0.3}
    assert list(step_values(METRICS, rewards=["math"], verdict="accuracy", drawn=True)) == [
        "reward",
        "accuracy",
        "entropy",
    ]


@pytest.mark.parametrize(
    ("further", "shown"),
    [
        ({"engine/workers": 2.0}, {"workers": 2.0}),
        ({"engine/workers": 2.0, "rollouts/age_mean": 0.9, "engine/restarts": 1.0}, {"age": 0.9}),
    ],
)
def test_of_many_processes_one_number_is_shown(further: dict[str, float], shown: dict[str, float]) -> None:
    given = {"rewards": ["math"], "verdict": "accuracy", "drawn": True}
    assert step_values({**METRICS, **further}, **given) == step_values(METRICS, **given) | shown


def test_of_stored_completions_loss_and_margin_are_shown() -> None:
    assert step_values(METRICS, rewards=[], verdict="accuracy", drawn=False) == {"loss": 0.6, "margin": 2.0}


def test_the_share_that_a_reward_other_than_a_verifier_gives_is_not_called_accuracy() -> None:
    def named(**given: object) -> str:
        return verdict_name(make_config(given))

    assert named(reward=["own.py:style"], correct_at=0.5) == "style>=0.5"
    assert named(reward=["own.py:style", "math"]) == "accuracy"
    assert named(reward=["own.py:style"], accuracy="style") == "accuracy"


def test_a_rollout_without_a_reward_is_shown_as_such() -> None:
    console = Console(file=io.StringIO(), width=200)
    rollout = rollout_of(request_of(Prompt("a", "a", (1,), "a")), [5]).replace(
        text="hm", components={"math": None}, reward=math.nan
    )
    Display(console=console).rollouts(1, [rollout])
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no reward" in said
    assert "nan" not in said


def test_the_first_failures_of_a_step_are_shown_and_the_others_counted() -> None:
    console = Console(file=io.StringIO(), width=200)
    Display(console=console).failures([f"failure {i}" for i in range(8)])
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert said == [*(f"  failure {i}" for i in range(5)), "  (3 more such messages in this step)"]


def test_nothing_is_said_of_the_time_left_before_a_step_was_timed() -> None:
    console = Console(file=io.StringIO(), width=200)
    display = Display(console=console)
    display.begin("warm start", 3, done=1)
    for step in (1, 2):
        display.step(step, {"loss": 1.0})
    first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert first == "step 1/3  loss 1"
    assert "left" in second
