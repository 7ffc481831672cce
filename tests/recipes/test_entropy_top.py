"""Entropy-top: only tokens of high entropy have an advantage."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.entropy_top import forking_tokens, threshold
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_all_tokens_is_the_host(seed: int) -> None:
    batch = random_batch(seed, drift=0.5)
    assert torch.allclose(taken("dapo+entropy-top(top_fraction=1.0)", batch)[1], taken("dapo", batch)[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(-2, 2))
def test_at_least_the_share_is_kept_and_a_constant_changes_nothing(seed: int, share: float, shift: float) -> None:
    batch = random_batch(seed)
    ones = torch.ones(batch.mask.shape, dtype=torch.float64)
    kept = forking_tokens(batch, ones, top_fraction=share) != 0
    assert int(kept.sum()) >= int(share * int(batch.mask.sum()))
    assert not kept[~batch.mask].any()
    moved = batch.replace(old_entropy=batch._tokens["old_entropy"] + shift)
    assert torch.equal(forking_tokens(moved, ones, top_fraction=share) != 0, kept)


def test_the_threshold_is_the_quantile() -> None:
    batch = random_batch(5)
    entropy = batch["old_entropy"][batch.mask]
    for share in (0.0, 0.2, 0.37, 1.0):
        assert torch.allclose(threshold(batch, share), torch.quantile(entropy, 1 - share))


def test_a_batch_without_tokens_has_no_kept_token() -> None:
    batch = random_batch(1)
    nothing = batch.replace(mask=torch.zeros_like(batch.mask))
    assert registry.method("entropy-top").credit[0].name == "forking_tokens"
    assert not forking_tokens(nothing, torch.ones(batch.mask.shape)).any()
