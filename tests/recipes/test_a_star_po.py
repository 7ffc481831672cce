"""A*-PO: the optimal value of a prompt, and regression on it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.a_star_po import _known, _measure, _start, optimal_value, second_stage, two_stages
from cohort.types import StepInfo
from tests.helpers import random_batch
from tests.recipes.losses import taken

SEEDS = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.05, 5))
def test_the_value_lies_between_mean_and_best_and_falls_with_beta(rewards: list[float], beta: float) -> None:
    known = torch.tensor(rewards, dtype=torch.float64)
    value = optimal_value(known, beta)
    assert float(known.mean()) - 1e-9 <= float(value) <= float(known.max()) + 1e-9
    assert float(optimal_value(known, 2 * beta)) <= float(value) + 1e-9
    assert torch.allclose(optimal_value(known, 0.0), known.mean())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-3, 1))
def test_the_gradient_is_reinforce_scaled_by_beta(seed: int, beta: float) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["ref_logp"])
    batch = batch.with_rollouts(optimal_value=torch.rand(batch.size, dtype=torch.float64))
    want = -2 * beta / batch.size * (batch.rewards - batch["optimal_value"])[:, None]
    found = taken(registry.method(f"a-star-po(beta2={beta})"), batch)[1]
    assert torch.allclose(found, torch.where(batch.mask, want, 0.0))


def test_stage_two_begins_when_every_prompt_has_a_value() -> None:
    rng = torch.Generator().manual_seed(0)
    state = _start(5, (), scores=None, beta1=0.5)
    rows, same = two_stages(state, count=3, rng=rng)
    assert rows.tolist() == [0, 1, 2]
    assert registry.method("a-star-po").stage("budget")(rows, same, group_size=16).tolist() == [8, 8, 8]
    known = {**state, "value": torch.ones(5).double(), "hopeless": torch.tensor([0, 1, 0, 0, 1]).bool()}
    drawn, after = two_stages(known, count=6, rng=rng)
    assert sorted(drawn.tolist()) == [0, 0, 2, 2, 3, 3]
    assert registry.method("a-star-po").stage("budget")(drawn, after, group_size=16).tolist() == [1] * 6


def test_scores_of_the_data_stand_for_stage_one() -> None:
    state = _start(3, [{"s": [0, 1]}, {"s": [0, 0]}, {}], scores="s", beta1=0.0)
    assert state["value"].tolist() == [0.5, 0.0, 0.0]
    assert state["hopeless"].tolist() == [False, True, True]


def test_stage_two_comes_also_where_a_prompt_has_no_answer_with_a_reward() -> None:
    rng = torch.Generator().manual_seed(0)
    state = _start(4, (), scores=None, beta1=0.0)
    seen = []
    for step in range(2):
        rows, state = two_stages(state, count=2, rng=rng, info=StepInfo(step=step))
        seen += rows.tolist()
        # No rollout of row 1 has a reward.
        batch = random_batch(step, groups=(2, 2)) if step else random_batch(step, groups=(2,))
        of = torch.tensor([2, 3] if step else [0])[batch["group"].unique(return_inverse=True)[1]]
        batch = batch.with_rollouts(row=of).replace(rewards=torch.ones(batch.size, dtype=torch.float64))
        assert not second_stage(_known(batch, None, state, StepInfo(step=step))).any()  # type: ignore[arg-type]
        state = _measure(batch, state, beta1=0.0, info=StepInfo(step=step))
    assert seen == [0, 1, 2, 3]
    rows, state = two_stages(state, count=4, rng=rng, info=StepInfo(step=2))
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    batch = random_batch(0, groups=(1, 1, 1, 1)).with_rollouts(row=torch.arange(4))
    known = _known(batch, None, state, StepInfo(step=2))  # type: ignore[arg-type]
    assert known["optimal_value"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert second_stage(known).all()
    # It is never measured again: the policy is not the reference any more.
    later = _measure(batch.replace(rewards=torch.ones(4).double()), state, beta1=0.0, info=StepInfo(step=2))
    assert _known(batch, None, later, StepInfo(step=3))["optimal_value"].tolist() == [1.0, 0.0, 1.0, 1.0]  # type: ignore[arg-type]


def test_an_epoch_goes_on_when_prompts_turn_out_hopeless() -> None:
    state = {**_start(4, (), scores=None, beta1=0.5), "value": torch.ones(4).double()}
    rng = torch.Generator().manual_seed(0)
    first, state = two_stages(state, count=1, rng=rng, info=StepInfo(step=5))
    state = {**state, "hopeless": torch.tensor([True, True, False, False])}
    rest, state = two_stages(state, count=3, rng=rng, info=StepInfo(step=6))
    assert sorted([*first.tolist(), *rest.tolist()]) == [0, 1, 2, 3]
    following, _ = two_stages(state, count=4, rng=rng, info=StepInfo(step=7))
    assert sorted(following.tolist()) == [2, 2, 3, 3]
