"""Larger steps at the same minibatch, and what is said of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.training.scaling import advice, scaled

BASE = {"base": 64, "minibatch": 16, "epochs": 2, "lr": 1e-3, "budget": 64_000}
CONFIG = {"prompts_per_step": 8, "group_size": 8, "updates": 4}


@given(st.integers(1, 50))
def test_only_updates_grow(times: int) -> None:
    few, many = scaled(64, **BASE), scaled(64 * times, **BASE)
    assert (many.minibatch, many.lr, many.updates) == (few.minibatch, few.lr, times * few.updates)
    wrong = scaled(64 * times, rule="scale_minibatch_linear_lr", **BASE)
    assert (wrong.updates, wrong.lr) == (few.updates, pytest.approx(few.lr * times))


def test_minibatches_are_whole() -> None:
    with pytest.raises(ValueError, match="72 samples cannot be cut into minibatches of 16"):
        scaled(72, **BASE)


def test_larger_minibatches_of_larger_steps_are_told() -> None:
    said = advice(CONFIG, {**CONFIG, "prompts_per_step": 32})
    assert said is not None
    assert "256 rollouts in place of 64" in said
    assert "updates 16" in said


@pytest.mark.parametrize(
    "changes", [{}, {"prompts_per_step": 32, "updates": 16}, {"prompts_per_step": 4}, {"updates": 2}, {"updates": 8}]
)
def test_nothing_is_said_of_others(changes: dict[str, int]) -> None:
    assert advice(CONFIG, {**CONFIG, **changes}) is None
