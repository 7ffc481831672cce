"""Identities of segment policy optimization (arXiv:2505.23564), and the values that its sampler finds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.spo_segment import cuts, segment_gains
from cohort.reductions.tree import tree_advantages, tree_values
from cohort.training.checks import check_method
from cohort.training.config import make_config
from tests import micro
from tests.stepping import run_of, sample
from tests.traits import batch_for, gradients, with_leaves


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_gains_of_a_rollouts_segments_telescope(seed: int) -> None:
    batch = batch_for("spo-segment", seed=seed, width=9)
    unsure = batch.replace(old_logp=torch.full(batch.mask.shape, -1.0, dtype=torch.float64))
    gain = segment_gains(unsure, prob_threshold=0.9)
    marked = batch.mask & ~batch["cut_value"].isnan()
    for i in range(batch.size):
        at = marked[i].nonzero()[:, 0]
        if not at.numel():
            assert not gain[i].any()
            continue
        assert not gain[i, : at[0]].any()
        assert float(gain[i, at].sum()) == pytest.approx(float(batch.rewards[i] - batch["cut_value"][i, at[0]]))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_tokens_that_the_policy_was_sure_of_get_no_gradient(seed: int) -> None:
    method = registry.method("spo-segment")
    batch, leaves = with_leaves(method, batch_for("spo-segment", seed=seed, width=9))
    grad = gradients(method.bind().loss(method.bind().prepare(batch).batch).total, leaves)["logp"]
    assert not grad[batch.old_logp >= math.log(0.9)].any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), interval=st.integers(1, 4))
def test_cuts_stand_before_uncertain_tokens(seed: int, interval: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logp, mask = -torch.rand(5, 12, generator=g), torch.rand(5, 12, generator=g) < 0.8
    found = cuts(logp, mask, interval=interval, prob_threshold=0.7)
    unsure = mask & (logp < math.log(0.7))
    for i in range(5):
        assert found[i].nonzero()[:, 0].tolist() == unsure[i].nonzero()[:, 0].tolist()[::interval]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_in_a_tree_siblings_sum_to_zero_and_a_path_to_what_it_gained(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    # Every node below the root hangs on an earlier one that has been given two children.
    parent = torch.tensor([-1, 0, 0, 1, 1, 2, 2, 5, 5])
    values = tree_values(parent, torch.rand(9, generator=g, dtype=torch.float64))
    gain = tree_advantages(parent, values)
    for node in (0, 1, 2, 5):
        assert float(gain[parent == node].sum()) == pytest.approx(0.0, abs=1e-12)
    assert float(gain[2] + gain[5] + gain[7]) == pytest.approx(float(values[7] - values[0]))


def test_the_sampler_values_its_cuts_by_rolling_on(micro_root: Path) -> None:
    with micro.method_ready(micro_root, "spo-segment", prompts_per_step=4, group_size=4) as (setup, _, progress):
        rollouts, _, _ = sample(run_of(setup, None, progress))
    assert len(rollouts) == 16
    values = [v for r in rollouts for v in r.fields["cut_value"] if not math.isnan(v)]  # type: ignore[union-attr]
    assert values
    assert all(any(abs(v - k / 3) < 1e-9 for k in range(4)) for v in values)
    for r in rollouts:
        sure = [lp >= math.log(0.99) for lp in r.sampler_logp]
        assert [math.isnan(v) for v in r.fields["cut_value"]] == sure  # type: ignore[union-attr]


def test_the_tree_refuses_to_train() -> None:
    with pytest.raises(UsageError, match="needs sampling"):
        check_method(registry.method("spo-segment(variant='tree')"), make_config({"group_size": 4}))
