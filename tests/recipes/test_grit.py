"""GRIT: a judge's score counts as right or not."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.rewards.spec import parse
from cohort.types import Batch, StepInfo

INFO = StepInfo(reward_names=("form", "judge"), reward_weights=(1.0, 2.0))


def shaped(form, scores):
    parts = torch.tensor([form, scores], dtype=torch.float64).T
    weights = torch.tensor(INFO.reward_weights, dtype=torch.float64)
    batch = Batch.of(torch.ones(len(form), 1), group=torch.zeros(len(form), dtype=torch.long), rewards=parts @ weights)
    method = registry.method("grit", judge="judge")
    return method.bind(info=INFO).shape(batch.replace(reward_components=parts)).rewards


SCORE = st.floats(0.01, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), SCORE, SCORE), min_size=1, max_size=6))
def test_any_two_scores_above_zero_give_the_same_reward(rows):
    form, one, other = map(list, zip(*rows, strict=True))
    want = torch.tensor(form, dtype=torch.float64) + 2.0
    assert torch.allclose(shaped(form, one), want)
    assert torch.allclose(shaped(form, other), want)
    assert torch.allclose(shaped(form, [0.0] * len(form)), want - 2.0)


def test_without_a_judge_the_reward_is_that_of_the_run():
    assert not registry.method("grit").shaping
    assert [spec.weight for spec in parse(registry.rewards("grit"))] == [1.0, 0.1, 0.5, 0.5, 1.0, 0.5]
