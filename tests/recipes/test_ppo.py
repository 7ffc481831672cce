"""PPO and PPO-max: advantages from values, what trains the values, and the tricks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.critic import gae, token_rewards, whiten
from cohort.axes.shaping import running_std
from cohort.methods import MethodError
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
UNIT = st.floats(0, 1)


def ready(seed: int, *, drift: float = 0.3, **hyper: object) -> tuple[Batch, dict[str, Tensor]]:
    """A batch with advantages and returns, and the loss's gradients by field."""
    method = registry.method("ppo", **hyper)
    batch, leaves = with_leaves(method, batch_for("ppo", seed=seed, drift=drift))
    states = method.bind(method.init(size=3)).on_rollouts(batch, [])
    made = method.bind(states).prepare(batch).batch
    return made, gradients(method.bind(states).loss(made).total, leaves)


def naive(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    out = torch.zeros_like(values)
    for i in range(len(values)):
        ahead, carried = 0.0, 0.0
        for t in reversed(mask[i].nonzero()[:, 0].tolist()):
            carried = float(rewards[i, t]) + gamma * ahead - float(values[i, t]) + gamma * lam * carried
            ahead, out[i, t] = float(values[i, t]), carried
    return out


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT, UNIT)
def test_advantages_are_those_of_the_recursion(seed: int, gamma: float, lam: float) -> None:
    """Tokens that an environment wrote are stepped over."""
    batch = batch_for("ppo", seed=seed, width=9)
    rewards = token_rewards(batch, beta=0.1)
    got = gae(rewards, batch["old_values"], batch.mask, gamma=gamma, lam=lam)
    assert torch.allclose(got, naive(rewards, batch["old_values"], batch.mask, gamma, lam), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT)
def test_returns_are_monte_carlo_sums_and_advantages_td_errors_at_the_ends(seed: int, gamma: float) -> None:
    made, _ = ready(seed, gamma=1.0, lam=1.0)
    rewards = token_rewards(made, beta=0.01)
    sums = torch.where(made.mask, rewards.flip(1).cumsum(1).flip(1), 0.0)
    assert torch.allclose(made["returns"], sums, atol=1e-10)
    values = made["old_values"]
    errors = naive(rewards, values, made.mask, gamma, 0.0)
    assert torch.allclose(gae(rewards, values, made.mask, gamma=gamma, lam=0.0), errors, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_token_rewards_sum_to_the_reward_less_the_kl(seed: int, beta: float) -> None:
    batch = batch_for("ppo", seed=seed)
    kl = torch.where(batch.mask, batch.old_logp - batch.ref_logp, 0.0).sum(1)
    want = torch.where(batch.mask.any(1), batch.rewards, 0.0) - beta * kl
    assert torch.allclose(token_rewards(batch, beta=beta).sum(1), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_whitened_advantages_have_mean_0_and_variance_1(seed: int) -> None:
    made, _ = ready(seed)
    valid = made.advantages[made.mask]
    assert abs(float(valid.mean())) < 1e-9
    assert float(valid.var()) == pytest.approx(1.0, abs=1e-5)
    clipped, _ = ready(seed, adv_clip=0.5)
    assert torch.allclose(clipped.advantages[made.mask], valid.clamp(-0.5, 0.5))


def test_a_single_token_has_advantage_0() -> None:
    mask = torch.tensor([[False, True], [False, False]])
    values = torch.randn(2, 2, dtype=torch.float64)
    assert not whiten(values, mask, eps=1e-8, ddof=1).any()
    assert not whiten(torch.full((2, 2), 0.7), torch.ones(2, 2).bool(), eps=1e-8, ddof=0).any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_whitening_a_minibatch_is_whitening_the_batch_where_there_is_one(seed: int) -> None:
    assert registry.method("ppo(whiten='minibatch')").couples
    assert not registry.method("ppo").couples
    (_, whole), (_, parts) = ready(seed), ready(seed, whiten="minibatch")
    assert torch.allclose(whole["logp"], parts["logp"])
    assert torch.allclose(whole["values"], parts["values"])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.01, 1))
def test_the_clipped_value_loss_is_never_below_the_plain_one(seed: int, clip: float) -> None:
    made, grads = ready(seed, value_clip=clip)
    plain, free = ready(seed, value_clip=None)
    clipped, unclipped = (
        registry.method("ppo", value_clip=c).bind().loss(b).regularizers["value_loss"]
        for c, b in ((clip, made), (None, plain))
    )
    assert clipped >= unclipped - 1e-12
    error = (made["values"] - made["returns"]).detach() / made.mask.sum()
    assert torch.allclose(free["values"], torch.where(made.mask, error, 0.0))
    # A gradient is that of the plain loss, or held back where the value moved beyond the clip.
    assert bool(((grads["values"] - free["values"]).abs() < 1e-12).logical_or(grads["values"] == 0).all())
    same = made.with_tokens(values=made["old_values"])
    value = registry.method("ppo", value_clip=clip).bind().loss(same).regularizers["value_loss"]
    want = torch.where(made.mask, (made["old_values"] - made["returns"]) ** 2, 0.0).sum() / made.mask.sum() / 2
    assert torch.isclose(value, want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1.5, 4))
def test_dual_clip_holds_back_what_is_far_beyond(seed: int, cap: float) -> None:
    (made, held), (_, pushed) = ready(seed, drift=2.0, dual_clip=cap), ready(seed, drift=2.0)
    grad, free = held["logp"], pushed["logp"]
    far = made.mask & ((made.logp - made.old_logp).exp() > cap) & (made.advantages < 0)
    assert not grad[far].any()
    assert torch.equal(grad[~far], free[~far])
    assert (free[far] != 0).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), min_size=2, max_size=4), st.booleans())
def test_rewards_by_the_statistics_of_all_scores_so_far(steps: list[list[float]], center: bool) -> None:
    method = registry.method("ppo", reward_norm="centred" if center else "scaled", reward_clip=2.0)
    states, seen = method.init(size=1), torch.empty(0, dtype=torch.float64)
    for scores in steps:
        rewards = torch.tensor(scores, dtype=torch.float64)
        seen = torch.cat([seen, rewards])
        batch = Batch.of(torch.ones(len(scores), 1), group=torch.arange(len(scores)), rewards=rewards)
        states = method.bind(states).on_rollouts(batch, [])
        state, shaped = states["shaping/running_scale"], method.bind(states).shape(batch).rewards
        std = float(seen.std()) if len(seen) > 1 else 0.0
        assert running_std(state) == pytest.approx(std, abs=1e-6)
        if std > 1e-6:
            want = (rewards - (seen.mean() if center else 0.0)) / (std + 1e-8)
            assert torch.allclose(shaped, want.clamp(-2, 2), atol=1e-5)
        elif len(seen) == 1:
            assert torch.equal(shaped, torch.zeros(1, dtype=torch.float64) if center else rewards.clamp(-2, 2))


def test_the_values_warm_up_before_the_policy_moves(micro_root: Path) -> None:
    method = "ppo(critic_warmup=2, kl_beta=0.0)"
    with micro.ready(micro_root, method, steps=4, group_size=2, weight_decay=0.1) as (setup, optimizer, progress):
        assert setup.policy.roles.models["critic"] is not None
        for step in range(3):
            policy = [p.detach().clone() for p in setup.policy.trainable()]
            head = setup.policy.roles.models["critic"].head.weight.detach().clone()
            one_step(run_of(setup, optimizer, progress))
            stayed = all(torch.equal(a, b) for a, b in zip(policy, setup.policy.trainable(), strict=True))
            assert stayed == (step < 2)
            assert not torch.equal(head, setup.policy.roles.models["critic"].head.weight)
    with pytest.raises(MethodError, match="critic='model'"):
        registry.method("ppo(critic_warmup=2, critic='head')")


def test_values_come_near_the_success_rate(micro_root: Path) -> None:
    """What the critic is for: its error beside that of a constant falls."""
    with micro.ready(micro_root, "ppo(critic_lr=0.01)", steps=12, lr=1e-4) as (setup, optimizer, progress):
        shares = []
        for _ in range(12):
            batch = one_step(run_of(setup, optimizer, progress)).batch
            assert batch is not None
            error = (batch["old_values"] - batch["returns"])[batch.mask]
            shares.append(float((error**2).mean() / batch["returns"][batch.mask].var()))
    assert shares[0] > 1.0
    assert max(shares[-3:]) < 0.8 * shares[0]


def test_its_value_loss_trains_beside_another_advantage() -> None:
    method = registry.method("grpo(kl_beta=0.0)+ppo:critic")
    batch, leaves = with_leaves(method, batch_for("ppo", seed=1))
    made = method.bind().prepare(batch).batch
    rewards = token_rewards(made)
    want = naive(rewards, made["old_values"], made.mask, 1.0, 0.95) + made["old_values"]
    assert torch.allclose(made["returns"], want)
    assert gradients(method.bind().loss(made).total, leaves)["values"].any()
