"""GMPO: the geometric mean of ratios that are clipped one by one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from tests.helpers import random_batch
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_a_clip_it_is_gspo_without_one(seed: int) -> None:
    batch = random_batch(seed, drift=0.5, empty=False)
    mine = taken("gmpo", batch, log_clip_low=50.0, log_clip_high=50.0)
    theirs = taken("gspo(clip_low=1.0, clip_high=1e6)", batch)
    # GSPO's lower bound is 0 here, which no ratio reaches.
    assert torch.allclose(mine[0], theirs[0])
    assert torch.allclose(mine[1], theirs[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_the_gradient_is_grpos(seed: int) -> None:
    batch = on_policy(random_batch(seed, empty=False))
    assert torch.allclose(taken("gmpo", batch)[1], taken("grpo(kl_beta=0.0)", batch)[1], atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_clipped_token_has_no_gradient_and_the_others_share_one(seed: int) -> None:
    batch = random_batch(seed, drift=1.0, empty=False)
    _, grad = taken("gmpo", batch)
    moved = batch.logp - batch.old_logp
    gain = registry.method("gmpo").bind().assign(batch)["outcome_advantage"][:, None]
    out = batch.mask & (((gain > 0) & (moved > 0.4)) | ((gain < 0) & (moved < -0.4)))
    assert not grad[out].any()
    for row, inside in zip(grad, batch.mask & ~out, strict=True):
        assert torch.allclose(row[inside], row[inside][:1].expand_as(row[inside]))
