"""OTC: correct answers earn less the further their tool calls are from the fewest that were enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.otc import tool_factor
from cohort.types import Batch
from tests.helpers import access_of, random_batch
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "shaping/tool_efficiency"


def shaped(batch: Batch, **hyper: Any) -> torch.Tensor:
    made = registry.method("otc", **hyper)
    states = made.bind(made.init(size=int(batch["row"].max()) + 1)).on_rollouts(batch, [])
    return made.bind(states).shape(batch).rewards


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 20), st.floats(0.5, 10))
def test_the_factor_is_one_at_the_optimum_and_falls_on_both_sides(least: int, c: float) -> None:
    factor = tool_factor(torch.arange(60.0).double(), torch.full((60,), float(least)).double(), c=c)
    assert factor[least] == 1
    assert bool((factor[:least].diff() > 0).all())
    assert bool((factor[least:].diff() < 0).all())
    assert bool(((factor >= 0) & (factor <= 1)).all())


def test_the_factor_vanishes_far_above_the_optimum() -> None:
    many = torch.tensor([1e7]).double()
    for least in (None, torch.zeros(1).double(), torch.tensor([3.0]).double()):
        assert abs(float(tool_factor(many, least, c=4.0))) < 1e-5


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["grpo", "ppo"]), st.booleans())
def test_wrong_rollouts_earn_nothing_whatever_they_call(seed: int, variant: str, memory: bool) -> None:
    batch = batch_for("otc", seed=seed)
    rewards = shaped(batch, variant=variant, memory=memory)
    assert not rewards[batch.rewards == 0].any()
    assert bool((rewards <= batch.rewards).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.1, 5))
def test_equal_calls_are_the_plain_reward_times_alpha(seed: int, alpha: float) -> None:
    """Without memory every correct rollout is then at the optimum."""
    batch = batch_for("otc", seed=seed)
    batch = batch.with_rollouts(tool_calls=3 * torch.ones_like(batch.rewards))
    assert torch.equal(shaped(batch, alpha=alpha), alpha * batch.rewards)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_an_all_correct_group_still_tells_fewer_calls_from_more(seed: int) -> None:
    batch = batch_for("otc", seed=seed, groups=(5,), empty=False)
    batch = batch.replace(rewards=torch.ones_like(batch.rewards))
    made = registry.method("otc")
    advantages = made.bind({KEY: {}}).assign(made.bind({KEY: {}}).shape(batch))["outcome_advantage"]
    calls = batch["tool_calls"]
    fewer = calls[:, None] < calls[None, :]
    assert bool((advantages[:, None] > advantages[None, :])[fewer].all())
    plain = registry.method("grpo").bind().assign(batch)["outcome_advantage"]
    assert not plain.any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_what_is_remembered_never_grows(seed: int) -> None:
    made = registry.method("otc", memory=True)
    states = made.init(size=3)
    before = states[KEY]["least"]
    for visit in range(3):
        batch = batch_for("otc", seed=seed + visit)
        states = made.bind(states).on_rollouts(batch, [])
        least = states[KEY]["least"]
        assert bool((least <= before).all())
        for row in range(3):
            here = (batch["row"] == row) & (batch.rewards > 0)
            if bool(here.any()):
                assert least[row] <= batch["tool_calls"][here].min()
        before = least


def test_memory_lowers_what_a_later_correct_rollout_earns() -> None:
    base = random_batch(1, groups=(2,), empty=False)
    base = base.replace(rewards=torch.ones(2).double())
    first, later = (base.with_rollouts(tool_calls=torch.tensor([n, n]).double()) for n in (1.0, 3.0))
    made = registry.method("otc", memory=True)
    states = made.bind(made.init(size=1)).on_rollouts(first, [])
    assert made.bind(states).shape(later).rewards.tolist() == pytest.approx([2**-0.5] * 2)
    # A group that is shaped before it was observed, as where a filter asks for more, knows of itself all the same.
    assert made.bind(made.init(size=1)).shape(later).rewards.tolist() == [1.0, 1.0]


def test_calls_and_their_yield_are_reported() -> None:
    batch = random_batch(0, groups=(3,)).with_rollouts(tool_calls=torch.tensor([4.0, 1.0, 1.0]).double())
    batch = batch.replace(rewards=torch.tensor([1.0, 1.0, 0.0]).double())
    reported = registry.method("otc").bind({KEY: {}}).prepare(batch).metrics
    assert (reported["tool_calls"], reported["tool_productivity"]) == (2, pytest.approx(2 / 6))


def test_a_penalty_is_left_as_it_is() -> None:
    batch = batch_for("otc", seed=3)
    assert torch.equal(shaped(batch.replace(rewards=-batch.rewards)), -batch.rewards)


def test_calls_are_counted_in_the_texts() -> None:
    texts = ["no tool", "```python\n1\n``` and ```\n2\n```", "<tool_call>{}</tool_call>", "a fence ``` left open"]
    batch = random_batch(0, groups=(4,))
    found = registry.method("otc").bind({KEY: {}}).on_scored(batch, access_of(texts))
    assert found["tool_calls"].tolist() == [0, 2, 1, 0]
    own = (
        registry.method("otc(call='SEARCH')")
        .bind({KEY: {}})
        .on_scored(batch, access_of(["SEARCH SEARCH", "", "search", "x"]))
    )
    assert own["tool_calls"].tolist() == [2, 0, 0, 0]
    with pytest.raises(MethodError, match="no regular expression"):
        registry.method("otc", call="(")
