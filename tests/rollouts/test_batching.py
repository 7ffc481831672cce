"""From rollouts to a batch: rows of episodes, whatever was said in them by whom."""

from __future__ import annotations

import pytest
import torch

from cohort.rollouts.batching import make_batch
from cohort.types import Batch
from cohort.types.replay import concat
from tests.environments.worlds import Worlds
from tests.rollouts.test_runner import requests, runner


def batch(count: int) -> Batch:
    worlds = Worlds()
    rollouts = worlds.group_rewards(runner(worlds, version=4).run(requests(count)))
    made = make_batch(rollouts, {rollout.prompt.id: 7 for rollout in rollouts})
    for i, rollout in enumerate(rollouts):
        size = len(rollout.tokens)
        assert made.mask[i, :size].tolist() == [bool(m) for m in rollout.mask]
        assert not made.mask[i, size:].any()
        for number, turn in enumerate(rollout.turns):
            assert made["turn"][i, turn.start : turn.end].tolist() == [number] * (turn.end - turn.start)
            assert made["turn_rewards"][i, turn.end - 1].item() == pytest.approx(turn.reward or 0.0)
        assert made["turn_rewards"][i].count_nonzero() == sum(bool(turn.reward) for turn in rollout.turns)
        # The model reads what the environment said, too.
        assert made.stored("token_ids")[i, :size].tolist() == rollout.tokens
    return made


def test_turns_are_a_row_and_only_what_the_policy_said_counts() -> None:
    made = batch(6)
    assert made["reward_components"].shape == (6, 2)
    assert torch.equal(made["reward_components"][:, 0], made.rewards)
    assert set(made["version"][made.mask].tolist()) == {4}
    assert made.groups.count == 2
    assert made.episode.tolist() == list(range(6))


def test_episodes_stay_apart_where_batches_come_together() -> None:
    a, b, c = batch(2), batch(3), batch(4)
    b = b.with_rollouts(episode=torch.tensor([5, 5, 2]))
    whole = concat([a, b, c])
    assert whole.episode.tolist() == [0, 1, 7, 7, 4, 8, 9, 10, 11]
    assert b.episode.tolist() == [5, 5, 2]
    # One that does not say has an episode a row.
    silent = Batch.of(c.mask, group=c.group, rewards=c.rewards)
    assert silent.episode.tolist() == [0, 1, 2, 3]
    assert concat([a, silent]).episode.tolist() == list(range(6))
