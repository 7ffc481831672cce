"""RL-Struct: all is in the reward."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.rewards.spec import parse
from tests.traits import batch_for


def test_the_components_and_their_weights_are_the_run_s_rewards():
    specs = parse(registry.rewards("rl-struct"))
    assert [(spec.name, spec.text, spec.weight) for spec in specs] == [
        ("valid", "json:valid", 1.0),
        ("keys", "json:keys", 1.0),
        ("form", "json:bare", 0.5),
        ("fields", "json-answer:words", 0.5),
        ("length", "length-limit", 0.25),
    ]
    assert [spec.verifies for spec in specs] == [False, False, False, True, False]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5))
def test_a_constant_on_every_reward_of_a_group_changes_nothing(seed, constant):
    batch = batch_for("rl-struct", seed=seed)
    bound = registry.method("rl-struct").over(registry.recipe("grpo")(kl_beta=0.0)).bind()
    before, after = (
        bound.prepare(each).batch.advantages for each in (batch, batch.replace(rewards=batch.rewards + constant))
    )
    assert torch.allclose(before, after, atol=1e-5)
