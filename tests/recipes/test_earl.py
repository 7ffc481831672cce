"""EARL: the policy gradient goes to each rollout's most uncertain tokens; the KL stays on all."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.reductions.groups import top_tokens
from cohort.types import Batch, StepInfo
from tests.helpers import random_batch

SEEDS = st.integers(0, 10_000)
SHARE = st.floats(0.01, 1)


def run(expression: str, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    made = registry.method(expression)
    logp = batch._tokens["logp"].clone().requires_grad_()
    ready = made.bind().prepare(batch.with_tokens(logp=logp)).batch
    loss = made.bind().loss(ready).total
    return loss.detach(), torch.autograd.grad(loss, logp)[0]


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHARE)
def test_the_gate_keeps_the_share_of_every_rollout(seed: int, share: float) -> None:
    batch = random_batch(seed)
    entropy, mask = batch["old_entropy"], batch.mask
    gate = top_tokens(entropy, mask, share)
    counts = mask.sum(1)
    want = torch.tensor([0 if n == 0 else max(1, -int(-(share * n - 1e-9) // 1)) for n in counts.tolist()])
    assert torch.equal(gate.sum(1), want)
    assert not gate[~mask].any()
    least = entropy.masked_fill(~gate, torch.inf).amin(1)
    most = entropy.masked_fill(~mask | gate, -torch.inf).amax(1)
    assert bool((least >= most)[counts > 0].all())


def test_of_equal_entropies_the_earlier_are_kept() -> None:
    mask = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    entropy = torch.tensor([[0.5, 9.0, 0.5, 0.5, 0.5], [0.1, 0.2, 0.1, 0.2, 0.1]])
    assert top_tokens(entropy, mask, 0.5).int().tolist() == [[1, 0, 1, 0, 0], [1, 1, 0, 1, 0]]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(["all", "kept"]))
def test_a_gate_that_keeps_everything_is_grpo(seed: int, denominator: str) -> None:
    batch = random_batch(seed)
    want = run("grpo", batch)
    got = run(f"grpo+earl(rho=1.0, denominator='{denominator}')", batch)
    assert torch.allclose(got[0], want[0])
    assert torch.allclose(got[1], want[1])


@settings(max_examples=15, deadline=None)
@given(SEEDS, SHARE)
def test_only_kept_tokens_are_pushed_and_the_denominators_differ_by_their_share(seed: int, share: float) -> None:
    batch = random_batch(seed)
    gate = top_tokens(batch["old_entropy"], batch.mask, share)
    _, everywhere = run(f"earl(rho={share})", batch)
    _, kept = run(f"earl(rho={share}, denominator='kept')", batch)
    assert not everywhere[~gate].any()
    factor = batch.mask.sum(1) / gate.sum(1).clamp(min=1)
    assert torch.allclose(kept, everywhere * factor[:, None])
    plain = run("grpo(kl_beta=0.0)", batch)[1]
    assert torch.allclose(everywhere[gate], plain[gate])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_kl_stays_on_all_tokens(seed: int) -> None:
    batch = random_batch(seed)
    gate = top_tokens(batch["old_entropy"], batch.mask, 0.2)
    flat = batch.replace(rewards=torch.ones_like(batch.rewards))
    assert torch.allclose(run("grpo+earl(denominator='kept')", flat)[1], run("grpo", flat)[1])
    outside = batch.mask & ~gate
    assert torch.allclose(run("grpo+earl", batch)[1][outside], run("grpo", flat)[1][outside])


def staged(**hyper: Any) -> tuple[list[tuple[float, ...]], list[float]]:
    signals = [(a, b, f) for a, b, f in product((0.0, 1.0), (0.0, 1.0), (0.0, 0.25, 1.0))]
    zero = torch.zeros(len(signals)).double()
    batch = Batch.of(
        torch.ones(len(signals), 1),
        group=torch.arange(len(signals)),
        rewards=zero,
        reward_components=torch.tensor(signals).double(),
    )
    made = registry.method("earl", syntax="compiles", interface="fits", functional="passes", **hyper)
    info = StepInfo(reward_names=("compiles", "fits", "passes"))
    return signals, made.bind(info=info).shape(batch).rewards.tolist()


def test_a_later_stage_counts_only_after_the_earlier_ones() -> None:
    for (compiles, fits, passes), reward in zip(*staged(), strict=True):
        if not compiles:
            assert reward == 0
        elif not fits:
            assert reward == pytest.approx(0.1)
        else:
            assert reward == pytest.approx(0.3 + 0.7 * passes)


def test_the_stages_are_given_together_or_not_at_all() -> None:
    batch = random_batch(1)
    assert torch.equal(registry.method("earl").bind().shape(batch).rewards, batch.rewards)
    with pytest.raises(MethodError, match="give it interface, functional"):
        registry.method("earl", syntax="compiles")
    with pytest.raises(MethodError, match="three numbers"):
        registry.method("earl", weights=(1.0, 2.0))
    made = registry.method("earl", syntax="compiles", interface="fits", functional="passes")
    assert set(made.components) == {"compiles", "fits", "passes"}
    with pytest.raises(UsageError, match="no reward 'compiles'"):
        made.bind().shape(batch)
