"""Flow-GRPO: the outcome at every turn, and turns that weigh alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.environments import Observation, Step
from cohort.recipes.flow_grpo_agent import context_lengths
from cohort.reductions.groups import group_sum
from cohort.reductions.turns import turn_sizes
from cohort.rollouts.batching import make_batch
from tests.environments.worlds import Worlds
from tests.rollouts.test_runner import requests, runner
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_of_one_turn_it_is_grpo(seed: int) -> None:
    batch = batch_for("flow-grpo-agent", seed=seed)
    batch = batch.with_tokens(turn=torch.zeros_like(batch["turn"]))
    losses = []
    for name in ("flow-grpo-agent(clip_high=0.2, kl_beta=0.04)", "grpo"):
        method = registry.method(name)
        made, leaves = with_leaves(method, batch)
        bound = method.bind()
        losses.append(gradients(bound.loss(bound.prepare(made).batch).total, leaves)["logp"])
    assert torch.allclose(*losses, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_weight_of_a_trajectory_is_that_of_any_other(seed: int) -> None:
    batch = batch_for("flow-grpo-agent", seed=seed)
    weights = registry.method("flow-grpo-agent").bind().weights(batch)
    some = batch.mask.any(1)
    assert torch.allclose(weights.sum(1), some.double() / batch.size)
    tokens, turns = turn_sizes(batch["turn"], batch.mask)
    for i in some.nonzero()[:, 0].tolist():
        own = [int((batch["turn"][i][batch.mask[i]] == k).sum()) for k in range(3)]
        assert turns[i] == sum(n > 0 for n in own)
        assert tokens[i][batch.mask[i]].tolist() == [own[k] for k in batch["turn"][i][batch.mask[i]].tolist()]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_advantages_sum_to_0_over_trajectories_or_over_turns(seed: int) -> None:
    batch = batch_for("flow-grpo-agent", seed=seed)
    turns = turn_sizes(batch["turn"], batch.mask)[1].double()
    for statistics, weight in (("trajectory", torch.ones_like(turns)), ("row", turns)):
        method = registry.method("flow-grpo-agent", statistics=statistics)
        made = method.bind().assign(batch)
        total = group_sum(weight * made["outcome_advantage"], batch.groups)
        count = group_sum(turns, batch.groups)
        assert torch.allclose(total[count > 1], torch.zeros_like(total[count > 1]), atol=1e-8)
        # At all tokens of a trajectory it is the same.
        assert torch.equal(made.advantages, made["outcome_advantage"][:, None] * batch.mask)


class Planner:
    """Shows the question and what was found so far, anew every turn."""

    def reset(self, row: Any, seed: int) -> str:
        self.question, self.memory = str(row["prompt"]), []  # type: ignore[var-annotated]
        return self.question

    def step(self, message: Any) -> Step:
        self.memory.append(len(self.memory))
        done = len(self.memory) == 3
        return Step(None if done else Observation(f"{self.question} {self.memory}", fresh=True), done=done)

    def close(self) -> None: ...


def test_the_length_of_a_turns_context_is_what_stood_before_it() -> None:
    rollouts = runner().run(requests()) + runner(Worlds(lambda k: Planner())).run(requests())
    assert any(rollout.context.rebuilt for rollout in rollouts)
    made = context_lengths(make_batch(rollouts, {}), SimpleNamespace(rollouts=rollouts))  # type: ignore[arg-type]
    for i, rollout in enumerate(rollouts):
        for turn in rollout.turns:
            before = len(rollout.request.context) + turn.start if turn.context is None else len(turn.context)
            if turn.context is not None or not rollout.context.rebuilt:
                assert made["prompt_length"][i, turn.start : turn.end].unique().tolist() == [before]
    longest = int(made["prompt_length"].max())
    method = registry.method("flow-grpo-agent", max_prompt_length=longest - 1)
    kept = method.bind().assign(made.replace(logp=made["sampler_logp"])).loss_mask
    assert (made.mask & ~kept).any()
    assert torch.equal(kept, made.mask & (made["prompt_length"] < longest))


def test_turns_in_contexts_of_their_own_are_one_trajectory() -> None:
    (rollout,) = [r for r in runner(Worlds(lambda k: Planner())).run(requests()) if len(r.turns) == 3][:1]
    batch = make_batch([rollout], {})
    assert turn_sizes(batch["turn"], batch.mask)[1].tolist() == [3]
    weights = registry.method("flow-grpo-agent").bind().weights(batch)
    assert [weights[0, t.start : t.end].sum().item() for t in rollout.turns] == pytest.approx([1 / 3] * 3)
