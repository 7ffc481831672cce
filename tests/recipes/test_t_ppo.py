"""T-PPO: training on what a window generated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.critic import last_valid
from cohort.errors import UsageError
from cohort.training.checks import check_method
from cohort.training.config import make_config
from cohort.types import Batch
from tests.rollouts.rolling import rolling_steps
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)


def run(batch: Batch, name: str = "t-ppo", **hyper: object) -> tuple[Batch, Tensor, dict[str, Tensor]]:
    """The prepared batch, the policy's part of the loss and the gradients of the whole."""
    method = registry.method(name, **hyper)
    given_batch, leaves = with_leaves(method, batch)
    made = method.bind().prepare(given_batch).batch
    loss = method.bind().loss(made)
    return made, loss.policy.detach(), gradients(loss.total, leaves)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_when_all_have_finished_it_is_ppo(seed: int, gamma: float, lam: float) -> None:
    batch = batch_for("t-ppo", seed=seed)
    batch = batch.with_rollouts(finished=torch.ones(batch.size), window_start=torch.zeros(batch.size))
    made, loss, grads = run(batch, gamma=gamma, gae_lambda=lam)
    plain, want, wanted = run(batch, "ppo", gamma=gamma, lam=lam, whiten="none", kl_beta=0.0)
    assert torch.allclose(made.advantages, plain.advantages)
    assert torch.isclose(loss, want)
    assert torch.allclose(grads["logp"], wanted["logp"])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_discounts_it_is_outcome_or_last_value_less_the_value(seed: int) -> None:
    batch = batch_for("t-ppo", seed=seed)
    made, _, _ = run(batch, gae_lambda=1.0)
    values, finished = batch["old_values"], batch["finished"].bool()
    last = torch.where(last_valid(batch.mask), values, 0.0).sum(1)
    end = torch.where(finished, batch.rewards, last)
    want = torch.where(batch.mask, end[:, None] - values, 0.0)
    assert torch.allclose(made.advantages, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_the_last_token_of_an_unfinished_rollout_has_no_advantage(seed: int, lam: float) -> None:
    batch = batch_for("t-ppo", seed=seed)
    made, _, _ = run(batch, gae_lambda=lam)
    open_ = last_valid(batch.mask) & ~batch["finished"].bool()[:, None]
    assert not made.advantages[open_].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.5, 1))
def test_each_loss_has_tokens_of_its_own(seed: int, gamma: float) -> None:
    """The policy learns from this window, the values from rollouts that ended, towards the discounted outcome."""
    batch = batch_for("t-ppo", seed=seed)
    _, _, grads = run(batch, gamma=gamma)
    early = torch.arange(batch.mask.shape[1]) < batch["window_start"][:, None]
    assert not grads["logp"][early].any()
    open_ = ~batch["finished"].bool()
    assert not grads["values"][open_].any()
    count = int((batch.mask & ~open_[:, None]).sum())
    for i in (~open_).nonzero()[:, 0].tolist():
        columns = batch.mask[i].nonzero()[:, 0]
        after = torch.arange(len(columns)).flip(0)
        want = (batch["values"][i, columns] - gamma**after * batch.rewards[i]) / count
        assert torch.allclose(grads["values"][i, columns], want)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 4), st.integers(3, 12))
def test_every_token_is_generated_once(lengths: list[int], window: int, slots: int, most: int) -> None:
    steps = rolling_steps(lengths, window=window, slots=slots, max_length=most, steps=100)
    done = dict.fromkeys(range(len(lengths)), 0)
    started = []
    for turns in steps:
        assert len(turns) <= slots
        for prompt, start, end, finished in turns:
            started += [prompt] * (start == 0)
            assert start == done[prompt]
            assert 0 < end - start <= window
            assert finished == (end == min(lengths[prompt], most))
            done[prompt] = end
    assert started == sorted(started)
    assert list(done.values()) == [min(length, most) for length in lengths]


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("t-ppo:sampling+grpo", {}, "takes advantages of whole rollouts"),
        ("t-ppo:-advantage+rloo:advantage", {}, "'rloo' .* takes advantages of whole rollouts"),
        ("t-ppo+dapo:filter", {}, "samples prompts again"),
        ("t-ppo", {"replay_groups": 2}, "replay_groups"),
    ],
)
def test_what_compares_whole_rollouts_is_refused(method: str, changes: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_method(registry.method(method), make_config({"group_size": 4, **changes}))
