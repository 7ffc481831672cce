"""COPO: groups that agree learn from the comparison between prompts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.copo import disagreement, local_weight
from cohort.reductions.groups import group_flat, group_mean
from cohort.types import Batch
from tests.helpers import access_of
from tests.traits import batch_for, gradients

SEEDS = st.integers(0, 10_000)


def gradient(batch: Batch, method: str) -> torch.Tensor:
    made = registry.method(method)
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = made.bind().loss(made.bind().prepare(batch.with_tokens(logp=logp)).batch).total
    return gradients(loss, {"logp": logp})["logp"]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 3.0))
def test_the_weight_is_a_half_at_rho_and_a_switch_for_large_gamma(entropy: float, rho: float) -> None:
    half = local_weight(torch.tensor([rho], dtype=torch.float64), gamma=7.0, rho=rho)
    assert torch.allclose(half, torch.full_like(half, 0.5))
    hard = local_weight(torch.tensor([entropy], dtype=torch.float64), gamma=1e9, rho=rho)
    assert float(hard) == (0.5 if entropy == rho else float(entropy > rho)) or abs(entropy - rho) < 1e-6


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_weight_of_one_is_grpo_and_a_weight_of_zero_compares_prompts(seed: int) -> None:
    batch = batch_for("copo", seed=seed, groups=(4, 4, 4))
    plain = gradient(batch, "grpo(kl_beta=0.0)")
    # Everybody answers something else, and nobody does.
    differ = batch.with_rollouts(answer_id=torch.arange(batch.size))
    assert torch.allclose(gradient(differ, "copo(rho=0.0, gamma=1e4)"), plain)
    agree = batch.with_rollouts(answer_id=torch.full((batch.size,), -1))
    between = batch.replace(rewards=group_mean(batch.rewards, batch.groups)[batch.groups.index])
    whole = gradient(between.replace(group=torch.zeros_like(batch.group)), "grpo(kl_beta=0.0)")
    assert torch.allclose(gradient(agree, "copo(gamma=1e4)"), whole)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_global_advantages_of_equal_groups_sum_to_zero(seed: int) -> None:
    batch = batch_for("copo", seed=seed, groups=(4, 4, 4))
    made = registry.method("copo").bind().assign(batch)
    between = made["global_advantage"]
    assert abs(float(between.sum())) < 1e-9
    returns = group_mean(batch.rewards, batch.groups)[batch.groups.index]
    assert torch.equal(between.sign(), (returns - batch.rewards.mean()).sign()) or bool(
        ((returns - batch.rewards.mean()).abs() < 1e-12).any()
    )
    alone = registry.method("copo").bind().assign(batch.replace(group=torch.zeros_like(batch.group)))
    assert not alone["global_advantage"].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_uniform_groups_are_trained_unless_they_are_average(seed: int) -> None:
    batch = batch_for("copo", seed=seed, groups=(4, 4, 4), empty=False)
    same = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    rewards = torch.where(batch.group == 0, 1.0, torch.where(batch.group == 1, 0.0, 0.0))
    mixed = (batch.group == 2).nonzero()[:, 0]
    rewards = rewards.double().index_put((mixed,), same)
    batch = batch.replace(rewards=rewards, logp=batch._tokens["old_logp"]).with_rollouts(
        answer_id=torch.zeros(batch.size, dtype=torch.int64)
    )
    push = -gradient(batch, "copo").sum(1)
    assert not gradient(batch, "grpo(kl_beta=0.0)")[batch.group != 2].any()
    assert bool((push[batch.group == 0] > 0).all())
    assert bool((push[batch.group == 1] < 0).all())
    # Its return is the mean of the batch, and it agrees: nothing is left.
    assert bool((push[batch.group == 2].abs() < 1e-5).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_blending_losses_and_advantages_agree_on_policy_alone(seed: int) -> None:
    batch = batch_for("copo", seed=seed, drift=0.8)
    on_policy = batch.replace(logp=batch._tokens["old_logp"])
    ways = [f"copo(gamma=2.0, rho=0.5, blend='{blend}')" for blend in ("loss", "advantages")]
    first, second = (gradient(on_policy, way) for way in ways)
    assert torch.allclose(first, second)


def test_blends_differ_where_the_clip_acts_on_each_part() -> None:
    found = [batch_for("copo", seed=seed, drift=0.8) for seed in range(6)]
    ways = [f"copo(gamma=2.0, rho=0.5, blend='{blend}')" for blend in ("loss", "advantages")]
    assert not all(torch.allclose(gradient(b, ways[0]), gradient(b, ways[1])) for b in found)


def test_answers_come_from_the_texts_and_no_answer_is_one_of_them() -> None:
    texts = ["so 4", "#### 4.0", "hm", "eh", "7", "\\boxed{7}", "7", "7"]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    made = registry.method("copo")
    batch = Batch.of(
        torch.ones(8, 2, dtype=torch.bool), group=torch.tensor(labels), rewards=torch.zeros(8, dtype=torch.float64)
    )
    batch = made.bind().on_scored(batch, access_of(texts, groups=labels))
    entropy = disagreement(batch)
    assert torch.allclose(entropy, torch.tensor([2.0, 1.0], dtype=torch.float64).log())
    assert bool(group_flat(batch["answer_id"], batch.groups)[1])
