"""Identities of BRPO (arXiv:2505.13438)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.brpo import prior_of, summary_advantages, thinking_advantages
from cohort.reductions.groups import group_sum
from cohort.types import Groups

PRIOR = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def traces(seed: int, sizes: tuple[int, ...] = (4, 3)) -> tuple[torch.Tensor, Groups]:
    g = torch.Generator().manual_seed(seed)
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.rand(sum(sizes), 4, generator=g, dtype=torch.float64), Groups(index, torch.arange(len(sizes)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_without_own_budgets_the_advantages_sum_to_zero(seed: int) -> None:
    scores, groups = traces(seed)
    gain = thinking_advantages(scores, PRIOR, groups, mode="v2only")
    assert torch.allclose(group_sum(gain, groups), torch.zeros(2, 4, dtype=torch.float64), atol=1e-12)
    # The first stretch of a thought has no earlier budget of its own.
    assert torch.equal(thinking_advantages(scores, PRIOR, groups)[:, 0], gain[:, 0])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_with_the_last_budget_alone_it_is_the_centred_reward(seed: int) -> None:
    scores, groups = traces(seed)
    base = prior_of("base", torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    gain = thinking_advantages(scores, base, groups, mode="v2only")
    last = scores[:, -1]
    mean = (group_sum(last, groups) / torch.tensor([4.0, 3.0]))[groups.index]
    assert torch.allclose(gain, (last - mean)[:, None].expand_as(gain), atol=1e-12)


def test_equal_scores_give_nothing() -> None:
    scores, groups = traces(0)
    for prior in ("uniform", "linear", "base"):
        weight = prior_of(prior, torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
        assert float(weight.sum()) == pytest.approx(1.0)
        gain = thinking_advantages(torch.full_like(scores, 0.7), weight, groups)
        assert torch.allclose(gain, torch.zeros_like(gain), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_summaries_of_a_cut_are_compared_with_each_other(seed: int) -> None:
    scores, groups = traces(seed)
    scores, split = torch.cat([scores, scores.flip(1)], 1), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3]).expand(7, 8)
    gain = summary_advantages(scores, split, groups, single=False)
    for cut in range(4):
        assert torch.allclose(gain[:, split[0] == cut].sum(1), torch.zeros(7, dtype=torch.float64), atol=1e-12)
    single = summary_advantages(scores, split, groups, single=True)
    assert torch.allclose(group_sum(single, groups), torch.zeros(2, 8, dtype=torch.float64), atol=1e-12)


def test_budgets_must_rise() -> None:
    with pytest.raises(UsageError, match="rising numbers"):
        registry.method("brpo(budgets=(4, 2))")
