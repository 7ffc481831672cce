"""Math verifiers: an oracle watches and changes nothing."""

from __future__ import annotations

import pytest
import torch

from cohort import registry
from tests.helpers import info_of, random_batch, with_rewards


def test_the_oracle_changes_no_reward_and_the_gap_is_that_of_the_means():
    batch = random_batch(3)
    said = torch.arange(batch.size, dtype=torch.float64) / batch.size
    watched = with_rewards(batch, said)
    method = registry.method("math-verifiers", oracle="oracle").over(registry.recipe("grpo")(kl_beta=0.0))
    made = method.bind(info=info_of(watched, "oracle")).prepare(watched)
    assert torch.equal(made.shaped.rewards, batch.rewards)
    assert made.metrics["oracle/gap"] == pytest.approx(float(batch["accuracy"].mean() - said.mean()))


def test_without_an_oracle_nothing_is_watched():
    assert registry.method("math-verifiers").shaping == ()
