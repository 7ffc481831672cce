"""LUSPO: GSPO in which a rollout counts by its length."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_gradient_is_gspos_times_the_length(seed: int) -> None:
    batch = random_batch(seed, drift=0.3)
    bounds = {"clip_low": 0.2, "clip_high": 0.3}
    mine, theirs = taken("luspo", batch, **bounds)[1], taken("gspo", batch, **bounds)[1]
    assert torch.allclose(mine, theirs * batch.mask.sum(1, keepdim=True))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_no_length_is_left_in_the_gradient_of_a_token(seed: int) -> None:
    batch = random_batch(seed, drift=0.0)
    _, grad = taken("luspo", batch.replace(logp=batch._tokens["old_logp"]), clip_low=0.5, clip_high=0.5)
    gain = registry.method("luspo").bind().assign(batch)["outcome_advantage"][:, None]
    assert torch.allclose(grad, torch.where(batch.mask, -gain / batch.size, 0.0))
