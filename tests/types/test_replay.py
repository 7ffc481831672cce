"""Rollouts that are kept for later steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cohort.training.merging import replay_actions
from cohort.types.replay import completions, concat, pack, unpack
from cohort.types.support import Rule, Support
from tests.helpers import prompt_of, random_batch, request_of, rollout_of, tiny_policy


def test_tokens_that_the_policy_did_not_choose_are_kept_for_the_model_to_read() -> None:
    policy = tiny_policy()
    request = request_of(prompt_of(policy, "ab"))
    sets = [np.array([3, 7], np.int32), None, np.array([9], np.int32)]
    support = Support(Rule({5: 1.0}, 2, frozenset({1})), sets)
    rollout = rollout_of(request, [7, 8, 9])
    rollout = rollout.replace(segments=(replace(rollout.segments[0], support=support),))
    mask = torch.tensor([[True, False, True, False]])
    batch = random_batch(0, groups=(1,), width=4).replace(mask=mask, token_ids=torch.tensor([[7, 8, 9, 5]]))
    held = unpack(pack(batch, [rollout]))
    assert held.contexts == (request.context,)
    assert completions(held.batch) == [[7, 8, 9]]
    again = replay_actions(policy, held)
    assert again.completion[0].tolist() == [7, 8, 9]
    assert again.support[0] is not None
    assert again.support[0].rule == support.rule
    assert [None if k is None else k.tolist() for k in again.support[0].candidates] == [[3, 7], None, [9]]


def test_what_an_earlier_version_kept_is_read() -> None:
    """Its states also held what the batch noted of the run."""
    policy = tiny_policy()
    rollout = rollout_of(request_of(prompt_of(policy, "ab")), [7, 8, 9])
    state = pack(random_batch(0, groups=(1,), width=4), [rollout])
    before, now = unpack({**state, "notes": {"max_new_tokens": 4}}), unpack(state)
    assert before.contexts == now.contexts
    assert all(torch.equal(before.batch[name], now.batch[name]) for name in now.batch.names)


def test_batches_as_one_keep_their_groups_apart() -> None:
    first, second = random_batch(0, groups=(2, 2), width=3), random_batch(1, groups=(3,), width=5)
    both = concat([first, second])
    assert both.size == 7
    assert both.groups.count == 3
    assert torch.equal(both["rewards"], torch.cat([first.rewards, second.rewards]))
    assert torch.equal(both.logp[:4, :3], first.logp)
    assert not both.mask[:4, 3:].any()
