"""CAPO: tokens of steps that a judge calls wrong earn less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.explain import explain
from cohort.recipes.capo_genprm import VOTES, token_rewards, voted, wrong_share
from cohort.rewards.calling import RewardError
from cohort.rollouts.batching import make_batch
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch
from tests.helpers import access_of
from tests.recipes import judges
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
CRITIQUES = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5)


def advantages(batch: Batch, **hyper: Any) -> Tensor:
    made = registry.method("capo-genprm", **hyper).bind().prepare(batch).batch
    return torch.where(made.mask, made.advantages, 0.0)


@settings(max_examples=30, deadline=None)
@given(CRITIQUES)
def test_what_all_call_wrong_most_call_wrong_and_what_most_do_somebody_does(critiques: list[list[int]]) -> None:
    share = wrong_share([critiques], 5)
    sets = {vote: set(voted(share, vote)[0].nonzero()[:, 0].tolist()) for vote in VOTES}
    counts = [sum(step in set(wrong) for wrong in critiques) for step in range(5)]
    assert sets["intersection"] == {k for k, n in enumerate(counts) if n == len(critiques)}
    assert sets["majority"] == {k for k, n in enumerate(counts) if 2 * n >= len(critiques)}
    assert sets["union"] == sets["average"] == {k for k, n in enumerate(counts) if n}
    assert sets["intersection"] <= sets["majority"] <= sets["union"]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(VOTES))
def test_advantages_of_the_tokens_of_a_group_sum_to_zero(seed: int, vote: str) -> None:
    batch = batch_for("capo-genprm", seed=seed)
    got = advantages(batch, vote=vote).sum(1)
    total = torch.zeros(3).double().index_add(0, batch.groups.index, got)
    assert torch.allclose(total, torch.zeros(3).double(), atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(VOTES), st.floats(0, 3))
def test_within_a_rollout_rewards_differ_by_the_weight_of_the_process_at_most(
    seed: int, vote: str, weight: float
) -> None:
    batch = batch_for("capo-genprm", seed=seed)
    rewards = token_rewards(batch, w_whole=2.0, w_process=weight, vote=vote)
    assert bool((rewards.amax(1) - rewards.amin(1) <= weight + 1e-12).all())
    assert bool((rewards <= 2 * batch.rewards[:, None]).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_the_process_and_with_equal_lengths_it_is_grpo(seed: int) -> None:
    batch = batch_for("capo-genprm", seed=seed)
    batch = batch.replace(mask=torch.ones_like(batch.mask))
    plain = registry.method("grpo", adv_eps=1e-12).bind().prepare(batch).batch.advantages
    assert torch.allclose(advantages(batch, w_process=0.0, w_whole=1.0, adv_eps=1e-12), plain, atol=1e-9)


def test_wrong_steps_give_an_all_right_group_a_signal() -> None:
    batch = Batch.of(torch.ones(2, 2), group=torch.zeros(2).long(), rewards=torch.ones(2).double())
    batch = batch.with_tokens(wrong_share=torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double())
    got = advantages(batch)
    assert got[0, 1] < 0
    assert bool((got[batch["wrong_share"] == 0] > 0).all())
    assert not advantages(batch.with_tokens(wrong_share=torch.zeros(2, 2).double())).any()


def test_critiques_mark_the_tokens_of_the_steps_that_they_name() -> None:
    seen: list[str] = []

    def judge(prompts: list[str], completions: list[str], hint: list[int]) -> list[list[list[int] | None]]:
        seen.extend(completions)
        return [[[k], [k, 7], None, ["?", 1]] for k in hint]  # type: ignore[list-item]

    texts = ["ab\n\ncd\n\nef", "one step", "", "x\n\ny"]
    access = access_of(texts, columns=[{"hint": 1}, {"hint": 0}, {"hint": 0}, {"hint": 0}])
    method = registry.method("capo-genprm", judge=judge)
    made = method.bind().on_scored(make_batch(access.rollouts, {}), access)
    assert seen == ["Step 0: ab\n\nStep 1: cd\n\nStep 2: ef", "Step 0: one step", "Step 0: x\n\nStep 1: y"]
    share = [row[: len(r.tokens)] for row, r in zip(made["wrong_share"].tolist(), access.rollouts, strict=True)]
    assert share[0] == [0, 0, 0, 0, 0.75, 0.75, 0.75, 0.75, 0, 0, 0]
    assert share[1] == [0.5] * 9
    assert share[2] == [0]
    assert share[3] == [0.5, 0.5, 0.5, 0.25, 0.25]


def test_training_without_a_judge_is_refused_and_says_what_to_write() -> None:
    with pytest.raises(UsageError) as caught:
        check_method(registry.method("capo-genprm"), make_config({}))
    message = str(caught.value)
    assert "'capo-genprm' (token_zscore) asks a function of yours" in message
    assert "judge(prompts, completions, **columns)" in message
    assert "judge='path.py:function'" in message
    assert "judge: a function of yours" in explain("capo-genprm")
    check_method(registry.method("capo-genprm", judge=judges.wrong_steps), make_config({}))
    access = access_of(["a"])
    broken = registry.method("capo-genprm", judge=lambda completions: [])
    with pytest.raises(RewardError, match="returned 0 verdicts for 1 questions"):
        broken.bind().on_scored(make_batch(access.rollouts, {}), access)
