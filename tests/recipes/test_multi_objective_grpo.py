"""Multi-objective GRPO: scores are added, then normalised together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.types import Batch
from tests import micro
from tests.golden.adapters.multi_objective_grpo import OBJECTIVES
from tests.traits import batch_for, info_for

NAME = "multi-objective-grpo"
SEEDS = st.integers(0, 10_000)


def advantages(batch: Batch, **hyper: Any) -> Tensor:
    prepared = registry.method(NAME, **hyper).bind(info=info_for(batch, NAME)).prepare(batch)
    return prepared.assigned["outcome_advantage"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_one_weight_alone_is_grpo_on_that_score(seed: int, axis: int) -> None:
    batch = batch_for(NAME, seed=seed)
    alone = advantages(batch, weights=tuple(float(i == axis) for i in range(4)))
    score = batch["reward_components"][:, -4 + axis]
    want = registry.method("grpo").bind().prepare(batch.replace(rewards=score)).assigned["outcome_advantage"]
    assert torch.allclose(alone, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_unit_of_the_weights_and_what_is_added_to_a_score_do_not_matter(seed: int) -> None:
    batch = batch_for(NAME, seed=seed)
    weights = (0.1, 0.2, 0.3, 0.4)
    plain = advantages(batch, weights=weights)
    assert torch.allclose(advantages(batch, weights=tuple(10 * w for w in weights)), plain, atol=1e-4)
    moved = batch["reward_components"].clone()
    moved[:, -2] += 3
    assert torch.allclose(advantages(batch.replace(reward_components=moved), weights=weights), plain, atol=1e-6)


def test_scores_that_cancel_give_no_gradient() -> None:
    batch = batch_for(NAME, seed=1)
    parts = batch["reward_components"].clone()
    parts[:, -4:] = 0.5
    parts[:, -1] = 1 - parts[:, 0]
    parts[:, -2] = parts[:, 0]
    found = advantages(batch.replace(reward_components=parts))
    assert torch.equal(found, torch.zeros_like(found))


def test_weights_and_objectives_go_together(micro_root: Any) -> None:
    with pytest.raises(MethodError, match="2 weights for 4 objectives"):
        registry.method(NAME, weights=(0.5, 0.5))
    config = make_config({**micro.CONFIG, "model": str(micro.folder(micro_root)), "method": NAME})
    with pytest.raises(UsageError, match=f"reads the reward '{OBJECTIVES[0]}', which this run lacks"):
        prepare(config, log=lambda _: None)
