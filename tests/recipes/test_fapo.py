"""FAPO: a right answer by a flawed way counts less than a sound one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.signals.components import component
from cohort.signals.first_errors import is_flawed, step_reward
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import info_of, with_rewards
from tests.recipes import judges
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)


def rewards(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("fapo", **hyper).bind(info=info_of(batch, "flawed")).shape(batch).rewards


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_penalty_it_is_right_and_wrong_and_with_2_flawed_is_wrong(seed: int) -> None:
    batch = batch_for("fapo", seed=seed)
    right, flawed = batch["accuracy"] == 1, component(batch, "flawed", info_of(batch, "flawed")) == 1
    assert torch.equal(rewards(batch, flaw_penalty=0.0), torch.where(right, 1.0, -1.0).double())
    assert torch.equal(rewards(batch, flaw_penalty=2.0), torch.where(right & ~flawed, 1.0, -1.0).double())
    assert set(rewards(batch)[right & flawed].tolist()) <= {0.0}


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_flaws_of_wrong_rollouts_are_not_read(seed: int) -> None:
    batch = batch_for("fapo", seed=seed)
    parts = batch["reward_components"].clone()
    parts[:, -1] = torch.where(batch["accuracy"] == 1, parts[:, -1], 1 - parts[:, -1])
    assert torch.equal(rewards(batch.replace(reward_components=parts)), rewards(batch))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 4), st.sampled_from([0.5, 1.0, 1.5]))
def test_a_flaw_turns_negative_when_sound_rollouts_outnumber_wrong_ones(
    sound: int, wrong: int, flaws: int, penalty: float
) -> None:
    """The sign of the advantage is that of (2 - penalty) wrong - penalty sound."""
    right = torch.tensor([1.0] * (sound + flaws) + [0.0] * wrong).double()
    batch = Batch.of(
        torch.ones(len(right), 1),
        group=torch.zeros(len(right)).long(),
        rewards=right,
        accuracy=right,
        reward_components=torch.zeros(len(right), 0).double(),
    )
    batch = with_rewards(batch, torch.tensor([0.0] * sound + [1.0] * (flaws + wrong)).double())
    method = registry.method("fapo", flaw_penalty=penalty)
    advantage = float(method.bind(info=info_of(batch, "flawed")).prepare(batch).batch.advantages[sound, 0])
    sign = (2 - penalty) * wrong - penalty * sound
    assert (advantage > 1e-9) - (advantage < -1e-9) == (sign > 0) - (sign < 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(-2, 12), st.integers(-1, 9))
def test_rewards_of_the_reward_model(predicted: int, gold: int) -> None:
    steps = 10
    reward = step_reward(predicted, gold, steps)
    assert -1 <= reward <= 1
    assert (reward == 1) == (predicted == gold)
    if gold >= 0 and 0 <= predicted < steps:
        assert reward >= 1 / steps - 1e-12
    elif predicted != gold:
        assert reward == -1
    assert step_reward(None, gold, steps) == -1


def test_verdicts_of_the_reward_model() -> None:
    assert [is_flawed(text) for text in ("-1", " 3 ", "0", "-2", "none", "", None)] == [
        False,
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_run_without_the_reward_is_refused_before_anything_is_sampled(base: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"reads the reward 'flawed', which this run lacks"):
        prepare(make_config({**base, "method": "fapo"}), log=lambda _: None)
    assert not (tmp_path / "run").exists()
    rewards = [*base["reward"], f"0*{judges.__file__}:flawed"]
    prepare(make_config({**base, "method": "fapo", "reward": rewards}), log=lambda _: None).close()
