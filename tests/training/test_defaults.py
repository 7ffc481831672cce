"""What a run takes where its configuration says nothing."""

from __future__ import annotations

import pytest

from cohort import registry
from cohort.training.config import make_config
from cohort.training.defaults import with_defaults

MINE = """
from cohort import Method
from cohort.recipes.recipe import recipe


@recipe(rewards=("2*length:9", "format:a"))
def judged():
    return Method()


@recipe(rewards=("format:a", "exact"))
def other():
    return Method()
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_the_rewards_of_a_methods_paper_are_those_of_a_run_that_names_none(mine):
    given = {"method": f"{mine}:judged", "data": "x.jsonl", "model": "m"}
    assert with_defaults(make_config(given)).rewards.reward == ["2*length:9", "format:a"]
    assert with_defaults(make_config(given, {"reward": ["math"]})).rewards.reward == ["math"]
    assert not with_defaults(make_config(given, {"environment": "calculator"})).rewards.reward
    assert not with_defaults(make_config({**given, "method": "grpo"})).rewards.reward
    assert not with_defaults(make_config({**given, "method": "none-such"})).rewards.reward
    offline = {"method": f"{mine}:judged", "pairs": "p.jsonl", "model": "m"}
    assert not with_defaults(make_config(offline)).rewards.reward


def test_methods_that_are_composed_bring_the_rewards_of_both(mine):
    assert registry.rewards(f"{mine}:judged+{mine}:other") == ("2*length:9", "format:a", "exact")
    assert registry.rewards(f"{mine}:judged:advantage+{mine}:other:-filter") == ("format:a", "exact")


def test_an_embedded_model_keeps_the_reward_of_its_task(mine):
    found = with_defaults(make_config({"method": f"{mine}:judged", "model": "toy"}))
    assert found.rewards.reward == ["task"]
