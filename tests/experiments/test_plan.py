"""What a plan is checked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cohort.errors import UsageError
from cohort.experiments.plan import PLAN, Arm, check_folder, make_plan, pinned


def test_procedural_data_is_the_same_for_every_seed() -> None:
    assert pinned("reasoning_gym:chain_sum") == "reasoning_gym:chain_sum?seed=0"
    assert pinned("reasoning_gym:chain_sum?size=9") == "reasoning_gym:chain_sum?size=9&seed=0"
    assert pinned("reasoning_gym:chain_sum?seed=4") == "reasoning_gym:chain_sum?seed=4"
    assert pinned("train.jsonl") == "train.jsonl"


def test_a_comparison_of_an_earlier_version_goes_on_where_the_settings_are_the_same(tmp_path: Path) -> None:
    # Keys that came since say nothing, and the toy model had another name.
    (tmp_path / PLAN).write_text(json.dumps({"asked": {"model": "nursery", "lr": 1e-4}}))
    check_folder(tmp_path, {"model": "toy", "lr": 1e-4, "came_since": 1})
    with pytest.raises(
        UsageError, match=r"other settings: model \(was 'toy', now 'other'\), lr \(was 0.0001, now 0.1\)"
    ):
        check_folder(tmp_path, {"model": "other", "lr": 0.1})


def test_gates_that_fit_no_reward_are_refused_before_any_run(tmp_path: Path) -> None:
    arms = [Arm("grpo", "grpo"), Arm("gated", "grpo", config={"reward_gate": ["number if form"]})]
    options = {"data": "reasoning_gym:chain_sum?size=9", "reward": ["number"], "model": "/there/is/none"}
    with pytest.raises(UsageError, match=r"reward_gate 'number if form': there is no reward 'form' here"):
        make_plan(arms, tmp_path / "out", options, 1, None, 1, {}, None)
    assert not (tmp_path / "out").exists()
