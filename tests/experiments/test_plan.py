"""What a plan is checked for."""

from __future__ import annotations

from cohort.experiments.plan import pinned


def test_procedural_data_is_the_same_for_every_seed() -> None:
    assert pinned("reasoning_gym:chain_sum") == "reasoning_gym:chain_sum?seed=0"
    assert pinned("reasoning_gym:chain_sum?size=9") == "reasoning_gym:chain_sum?size=9&seed=0"
    assert pinned("reasoning_gym:chain_sum?seed=4") == "reasoning_gym:chain_sum?seed=4"
    assert pinned("train.jsonl") == "train.jsonl"
