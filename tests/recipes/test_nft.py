"""NFT: maximum likelihood of right rollouts, and of wrong ones through the implied negative policy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.objective import GradedRewardError
from cohort.types import Batch
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)
NO_CLAMP = {"rate_clamp": 0.0}


def kept(batch: Batch) -> Batch:
    """The groups with both outcomes, as the filter leaves them."""
    return batch.select(registry.method("nft").bind().keep(batch))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_it_is_the_policy_gradient_with_the_papers_advantages(seed: int) -> None:
    batch = on_policy(kept(random_batch(seed)))
    length = {"length_norm": 7.0}
    if not batch.size:
        return
    _, grad = taken("nft", batch, **length, **NO_CLAMP)
    _, centred = taken("dr-grpo", batch, max_tokens=7)
    assert torch.allclose(grad, centred)
    _, grad = taken("nft", batch, prompt_weight="sqrt_odds", **length, **NO_CLAMP)
    host = registry.method("grpo", kl_beta=0.0, adv_eps=1e-12, aggregation="constant")
    _, standard = taken(host, batch)
    assert torch.allclose(grad * 7.0, standard * batch.mask.shape[1], rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["token", "sequence"]))
def test_without_negatives_it_is_rejection_fine_tuning(seed: int, ratio_type: str) -> None:
    batch = kept(random_batch(seed))
    if not batch.size:
        return
    _, grad = taken("nft", batch, neg_weight=0.0, prompt_weight="uniform", ratio_type=ratio_type)
    right = batch.mask & (batch.rewards == 1)[:, None]
    assert not grad[~right].any()
    each = -1 / batch.size / (1000 if ratio_type == "token" else 1)
    assert torch.allclose(grad[right], torch.full_like(grad[right], each))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 3))
def test_a_right_token_is_pushed_the_same_whatever_its_ratio_and_a_wrong_one_less_when_it_fell(
    seed: int, drop: float
) -> None:
    batch = on_policy(kept(random_batch(seed)))
    if not batch.size:
        return
    moved = batch.replace(logp=batch._tokens["logp"] - drop)
    before, after = taken("nft", batch)[1], taken("nft", moved)[1]
    right = (batch.rewards == 1)[:, None] & batch.mask
    wrong = (batch.rewards == 0)[:, None] & batch.mask
    assert torch.allclose(before[right], after[right])
    assert bool((after[wrong] > 0).all())
    assert bool((after[wrong] < before[wrong]).all())
    assert torch.allclose(after[wrong], before[wrong] * torch.exp(torch.tensor(-drop)).double() / _bound(moved)[wrong])


def _bound(batch: Batch) -> torch.Tensor:
    """max((1 - c R) / (1 - c), 1) at every token."""
    rate = registry.method("nft").bind().assign(batch)["correct_rate"][:, None]
    return ((1 - rate * (batch.logp - batch.old_logp).exp()) / (1 - rate)).clamp(min=1)


def test_the_implied_likelihood_stays_positive_in_float32() -> None:
    """1e6 off the floor, float32 cannot add the floor back: the value of the logarithm must not come from a difference."""
    batch = random_batch(1, dtype=torch.float32)
    batch = batch.replace(logp=batch._tokens["old_logp"] + 12.0)
    loss, grad = taken("nft", batch, eps_neg=1e-3)
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()
    # Beyond the cap no token has a gradient.
    assert not grad.any()


def test_one_sided_groups_are_replaced_and_graded_rewards_need_a_threshold() -> None:
    made = registry.method("nft", max_rounds=4)
    assert made.refill_rounds == 4
    batch = random_batch(5, binary=False)
    with pytest.raises(GradedRewardError, match="threshold"):
        made.bind().prepare(batch)
    graded = registry.method("nft", threshold=0.0)
    rows = graded.bind().keep(batch)
    right = batch.rewards >= 0
    for label in batch.group.unique():
        members = batch.group == label
        expected = 0 < int(right[members].sum()) < int(members.sum())
        assert bool(torch.isin(members.nonzero()[:, 0], rows).all()) == expected
