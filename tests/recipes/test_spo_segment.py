"""Identities of segment policy optimization (arXiv:2505.23564), and the values that its sampler finds."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.policies.packing import pack
from cohort.recipes.spo_segment import cuts, segment_gains
from cohort.reductions.tree import recent_edges, tree_advantages, tree_values
from cohort.training.loop import one_step
from cohort.types import Rollout
from cohort.types.replay import unpack
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


def test_where_no_edge_is_left_none_is_used() -> None:
    old = torch.zeros(3, dtype=torch.int64)
    for made in (old, old[:0]):
        assert not recent_edges(made, made, now=9, rng=torch.Generator()).numel()


TREE = "spo-segment(variant='tree', branching=(2, 3), segment_tokens=2, prob_threshold=0.9999, edges_per_prompt=2, edge_age=3)"
SIZE = {"prompts_per_step": 3, "group_size": 4, "max_new_tokens": 10, "temperature": 1.3}


def test_the_paths_of_a_tree_sum_up_and_each_edge_is_trained_in_one_of_them(micro_root: Path) -> None:
    with micro.ready(micro_root, TREE, thought=True, **SIZE) as (setup, _, progress):
        rollouts, _, _ = sample(run_of(setup, None, progress))
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.prompt.id, []).append(rollout)
    assert max(map(len, groups.values())) > 6
    gained = 0
    for group in groups.values():
        root, used, owned = set(), set(), []
        for r in group:
            gain, edge, now = (r.fields[name] for name in ("edge_advantage", "edge", "edge_used"))
            assert isinstance(gain, list)
            assert isinstance(edge, list)
            assert isinstance(now, list)
            assert len(gain) == len(edge) == len(now) == len(r.tokens)
            starts = range(0, min(len(r.tokens), 5), 2)
            # Along a path the gains are what its end is worth more than the root.
            root.add(round(r.reward - sum(gain[t] for t in starts), 9))
            owned += [edge[t] for t in starts if edge[t] >= 0]
            used |= {e for e, u in zip(edge, now, strict=True) if u}
            assert all(abs(g) > 1e-12 for g, e in zip(gain, edge, strict=True) if e >= 0)
        assert len(root) == 1
        assert len(owned) == len(set(owned))
        assert used <= set(owned)
        assert len(used) == min(2, len(owned))
        gained += len(owned)
    assert gained > 6


def test_edges_that_a_step_left_are_trained_in_later_ones_and_forgotten_with_age(micro_root: Path) -> None:
    with micro.ready(micro_root, TREE, thought=True, **SIZE) as (setup, _, progress):
        run = run_of(setup, None, progress)
        left: list[dict[int, int]] = []
        for _ in range(4):
            one_step(run)
            (state,) = (state for state in run.progress.states.values() if "next" in state)
            for each in state["next"]:
                rows = unpack(each).batch
                for group in rows.group.unique().tolist():
                    mine = rows.loss_mask & (rows.group == group)[:, None]
                    assert 0 < len(rows["edge"][mine].unique()) <= 2
            left.append({e["made"]: int((e["rows"]["tokens"]["edge"] >= 0).sum()) for e in state["kept"]})
    assert left[0]
    for before, after in pairwise(left):
        assert all(after.get(made, 0) <= count for made, count in before.items())
    assert any(after.get(made, 0) < count for b, after in pairwise(left) for made, count in b.items())
    assert all(step - made < 3 for step, kept in enumerate(left, 1) for made in kept)


def test_a_tree_is_passed_through_the_model_once(micro_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Segments are short here.
    monkeypatch.setattr("cohort.policies.trees.BRANCH", 1)
    with micro.ready(micro_root, TREE, thought=True, **SIZE) as (setup, _, progress):
        rollouts, _, _ = sample(run_of(setup, None, progress))
        actions = setup.policy.actions(rollouts)
        row = pack(actions, torch.device("cpu"))
    whole = sum(len(r.request.context) + len(r.tokens) for r in rollouts)
    beginnings = {
        (*r.request.context, *r.tokens[:-1])[: n + 1]
        for r in rollouts
        for n in range(len(r.request.context) + len(r.tokens) - 1)
    }
    assert len(row.ids) == len(beginnings) < whole / 3


@pytest.mark.parametrize("branching", [(), (0, 2)])
def test_a_tree_that_does_not_branch_is_refused(branching: tuple[int, ...]) -> None:
    with pytest.raises(MethodError, match="branching"):
        registry.method("spo-segment", variant="tree", branching=branching)
