"""Group Robust Preference Optimization: its identities, and how it knows the groups of labellers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.objective import preferred_pairs, sequence_log_ratio
from cohort.recipes.group_robust_po import group_losses, moved, pair_losses
from cohort.signals.strata import code
from cohort.types import Batch
from tests.helpers import access_of, random_batch
from tests.recipes.steps import pairs_batch, update_of

SEEDS = st.integers(0, 10_000)
KEY = "objective/worst_group"


def pairs(seed: int, groups: int) -> Batch:
    """Eight pairs, labelled by groups in turn."""
    batch = pairs_batch(random_batch(seed, groups=(16,), drift=1.0))
    return batch.with_rollouts(stratum=batch["row"] % groups)


def weights(method: str, batch: Batch, states: dict[str, Any] | None = None) -> Tensor:
    """The weights of the groups after a step."""
    made = registry.method(method)
    states = states or made.bind(made.init(size=8)).on_rollouts(batch, [])
    return made.bind(states).on_step_end(batch, [], None)[KEY]["log_weights"].exp()


def mean_loss(batch: Batch, **how: Any) -> Tensor:
    better, worse = preferred_pairs(batch)
    ratio = sequence_log_ratio(batch)
    return pair_losses(ratio[better] - ratio[worse], **how).mean()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=st.integers(1, 5), step=st.floats(0, 1))
def test_weights_are_a_distribution_and_grow_with_the_loss(seed: int, groups: int, step: float) -> None:
    batch = pairs(seed, groups)
    after = weights(f"group-robust-po(base='dpo', beta=0.5, step_size={step!r})", batch)
    assert float(after.sum()) == pytest.approx(1.0, abs=1e-12)
    state = {"codes": list(range(groups)), "counts": [0] * groups}
    state["counts"] = [int((batch["stratum"] == g).sum()) // 2 for g in range(groups)]
    losses = group_losses(batch, state, base="dpo", beta=0.5, scale_by_counts=True)
    order = torch.argsort(losses)
    assert (after[order].diff() >= -1e-12).all()


def test_equal_losses_leave_the_weights() -> None:
    before = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log()
    assert torch.allclose(moved(before, torch.full((3,), 7.0), step_size=0.5), before)
    # As large as the scaled losses of a data set are: no overflow.
    far = moved(before, torch.tensor([1e6, 0.0, 0.0]), step_size=1.0).exp()
    assert far.tolist() == [1.0, 0.0, 0.0]


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, base=st.sampled_from(["dpo", "ipo"]), groups=st.sampled_from([1, 2, 4]))
def test_without_an_adversary_it_is_the_base_loss(seed: int, base: str, groups: int) -> None:
    """One group; or no step, groups of equal size and means over the batch."""
    batch = pairs(seed, groups)
    step = 0.5 if groups == 1 else 0.0
    method = f"group-robust-po(base='{base}', beta=0.2, step_size={step}, scale_by_counts=False)"
    assert torch.allclose(update_of(method, batch)[0], mean_loss(batch, base=base, beta=0.2), atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_loss_uses_the_weights_after_the_move_as_constants(seed: int) -> None:
    batch, method = pairs(seed, 3), "group-robust-po(base='dpo', beta=0.5, step_size=0.1)"
    loss, grads, ready = update_of(method, batch)
    after = weights(method, batch)
    counts = torch.tensor([3.0, 3.0, 2.0], dtype=torch.float64)
    better, worse = preferred_pairs(batch)
    leaf = ready["logp"].detach().requires_grad_()
    ratio = sequence_log_ratio(ready.replace(logp=leaf))
    terms = pair_losses(ratio[better] - ratio[worse], base="dpo", beta=0.5)
    want = ((after * 8 / counts)[batch["stratum"][better]] * terms).sum()
    assert torch.allclose(loss, want, atol=1e-10)
    assert torch.allclose(grads["logp"], torch.autograd.grad(want, leaf)[0], atol=1e-10)


def test_a_group_that_is_absent_falls_behind() -> None:
    batch = pairs(1, 3)
    made = registry.method("group-robust-po(base='dpo', beta=0.5, step_size=0.1)")
    states = made.bind(made.init(size=8)).on_rollouts(batch, [])
    without = batch.select((batch["stratum"] != 2).nonzero()[:, 0])
    assert weights("group-robust-po(base='dpo', beta=0.5, step_size=0.1)", without, states)[2] < 1 / 3


def test_importance_sampling_weighs_by_the_data_and_never_moves() -> None:
    batch, method = pairs(2, 3), "group-robust-po(importance_sampling=True, step_size=1.0)"
    want = torch.tensor([1 / 3, 1 / 3, 1 / 2], dtype=torch.float64)
    assert torch.allclose(weights(method, batch), want / want.sum())


def test_groups_come_from_the_data_with_the_number_of_their_rows() -> None:
    made = registry.method("group-robust-po(column='who')")
    rows = [{"who": "a"}, {"who": "b"}, {"who": "b"}, {"who": 3}]
    state = made.init(size=4, rows=rows)[KEY]
    assert dict(zip(state["codes"], state["counts"], strict=True)) == {code("a"): 1, code("b"): 2, code(3): 1}
    access = access_of(["1", "2", "3"], columns=[{"who": "b"}, {"who": "3"}, {"who": "a"}])
    batch = made.bind().on_scored(random_batch(0, groups=(3,)), access)
    assert batch["stratum"].tolist() == [code("b"), code(3), code("a")]
    # They are known already: what a step shows of them changes nothing.
    after = made.bind({KEY: state}).on_rollouts(batch, [])[KEY]
    assert (after["codes"], after["counts"]) == (state["codes"], state["counts"])


def test_groups_that_were_not_given_beforehand_join_when_they_are_met() -> None:
    made = registry.method("group-robust-po")
    batch = pairs(3, 2)
    states = made.bind(made.init(size=8)).on_rollouts(batch.select(torch.arange(4)), [])
    assert states[KEY]["counts"] == [1, 1]
    other = batch.with_rollouts(stratum=batch["row"] % 4)
    states = made.bind(states).on_rollouts(other, [])
    assert states[KEY]["codes"] == [0, 1, 2, 3]
    assert states[KEY]["counts"] == [1, 1, 2, 2]
    assert weights("group-robust-po(step_size=0.0)", other, states).tolist() == pytest.approx([0.25] * 4)
