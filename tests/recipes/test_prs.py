"""PRS's identities (arXiv:2512.07478): the stages never cross, and each pays by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.prs import read_calls, staged
from cohort.signals.components import component
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import access_of, info_of
from tests.traits import batch_for, info_for

SEEDS = st.integers(0, 10_000)


def rewards(batch: Batch, **hyper: Any) -> Tensor:
    return registry.method("prs", **hyper).bind(info=info_for(batch, "prs")).shape(batch).rewards


@given(SEEDS, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_stages_never_cross(seed: int, w1: float, w2: float) -> None:
    batch = batch_for("prs", seed=seed)
    got, valid, ended = rewards(batch, w1=w1, w2=w2), batch["calls_valid"] > 0, batch["answered"] > 0
    assert bool(((got >= 0) & (got <= 1 + 1e-12)).all())
    assert not got[~valid].any()
    assert torch.equal(got[valid & ~ended], torch.full_like(got[valid & ~ended], w1))
    assert bool((got[valid & ended] >= w1 + w2).all())


@given(SEEDS)
def test_a_perfect_answer_is_worth_1_whatever_the_weights(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    w1, w2 = (torch.rand(2, generator=g) / 2).tolist()
    sound = torch.tensor([True, True, False])
    got = staged(sound, sound, torch.tensor([1.0, 7.0, 1.0]).double(), w1=w1, w2=w2)
    assert torch.allclose(got, torch.tensor([1.0, 1.0, 0.0]).double())


def test_where_nobody_is_right_formats_still_differ() -> None:
    batch = batch_for("prs", groups=(4,), empty=False, interleave=False)
    parts = batch["reward_components"].clone()
    parts[:, -1] = 0.0
    batch = batch.with_rollouts(answered=torch.tensor([1.0, 0, 0, 1]).double(), calls_valid=torch.ones(4).double())
    ready = registry.method("prs").bind(info=info_for(batch, "prs")).prepare(batch.replace(reward_components=parts))
    assert (ready.batch["outcome_advantage"] > 0).tolist() == [True, False, False, True]


def test_named_rewards_stand_in_for_what_is_read() -> None:
    batch = batch_for("prs")
    names = ("overlap",)
    info = info_of(batch, *names)
    named = {"format": "reward0", "calls": "reward1"}
    got = registry.method("prs", **named).bind(info=info).shape(batch).rewards
    valid, kept = component(batch, "reward1", info) > 0, component(batch, "reward0", info) > 0
    assert torch.equal(got == 0, ~valid)
    assert torch.equal(got >= 0.2, valid & kept & (batch["answered"] > 0))


def test_what_is_read_of_texts() -> None:
    texts = ["paris", "", "<think>so</think>", "<answer></answer>", "\\boxed{4}"]
    batch = batch_for("prs", groups=(5,))
    made = read_calls(batch, access_of(texts))
    assert made["calls_valid"].tolist() == [1, 1, 1, 1, 1]
    assert made["answered"].tolist() == [1, 0, 0, 0, 1]


def test_weights_that_leave_nothing_for_the_answer_are_refused() -> None:
    with pytest.raises(MethodError, match="must not exceed 1"):
        registry.method("prs(w1=0.6, w2=0.6)")


def test_a_run_without_the_reward_of_its_answers_is_refused(base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"reads the reward 'thinking', which this run lacks"):
        prepare(make_config({**base, "method": "prs(quality='thinking')"}), log=lambda _: None)
