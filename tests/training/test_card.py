"""What stands beside a trained model."""

from __future__ import annotations

import shlex

from cohort.training.card import card, command
from cohort.training.config import make_config, parse_set

GIVEN = {
    "method": "dapo+gdpo",
    "model": "org/model",
    "data": "train.jsonl",
    "reward": ["math", "0.2*format:a|b"],
    "steps": 3,
    "seed": 7,
    "group_size": 4,
    "stop": ["\n\n"],
    "checkpoint.every": 2,
}


def test_the_card_says_what_made_the_model_and_how_it_did() -> None:
    rows = [{"step": 3, "reward/mean": 0.5, "reward/math": 0.25, "accuracy": 0.25, "entropy": None}]
    text = card(make_config(GIVEN), "run-1", rows, verdict="accuracy")
    assert "base_model: org/model" in text
    for said in (
        "dapo+gdpo",
        "train.jsonl",
        "math, 0.2*format:a\\|b",
        "| seed | `7` |",
        "| reward/math | 0.25 |",
        "| accuracy | 0.25 |",
    ):
        assert said in text
    assert "entropy" not in text
    assert command(make_config(GIVEN)) in text


def test_the_command_makes_the_same_configuration() -> None:
    config = make_config(GIVEN)
    words = shlex.split(command(config))
    assert words[:3] == ["cohort", "train", "dapo+gdpo"]
    given: dict[str, object] = {"method": words[2]}
    rewards, sets = [], []
    for name, value in zip(words[3::2], words[4::2], strict=True):
        if name == "--reward":
            rewards.append(value)
        elif name == "--set":
            sets.append(value)
        else:
            given[name.removeprefix("--")] = int(value) if value.isdigit() else value
    assert make_config({**given, "reward": rewards}, parse_set(sets)).plain() == config.plain()
