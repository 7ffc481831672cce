"""ExPO's identities (arXiv:2507.02834), and that explanations are trained on beside the groups and not in them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.expo_explain import explained_pairs
from cohort.seeds import generator
from cohort.training.loop import one_step
from cohort.training.merging import minibatches
from cohort.types import Batch
from tests import micro
from tests.golden.guided import FakeSampler, requests_of, text_of
from tests.helpers import info_of, random_batch
from tests.stepping import run_of


def with_explanations(seed: int, count: int = 3) -> tuple[Batch, torch.Tensor]:
    """Rollouts with advantages and `count` explanations behind them, of which logp is a leaf."""
    batch = random_batch(seed, groups=(4, 4, 4, *[1] * count), interleave=False, drift=0.1)
    apart = (batch.groups.index >= 3).double()
    leaf = batch.stored("logp").detach().clone().requires_grad_()
    advantages = torch.where(apart > 0, 0.0, 2.0 * batch.rewards - 1)[:, None].expand(batch.mask.shape)
    batch = batch.replace(logp=leaf, advantages=advantages)
    return batch.with_rollouts(auxiliary=apart, explained=torch.where(apart > 0, 1.0, torch.nan)), leaf


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from(["token_mean", "sum"]), beta=st.floats(0.0, 1.0))
def test_explanations_add_their_likelihood_and_change_nothing_else(seed: int, norm: str, beta: float) -> None:
    """-beta / (|U| len) or -beta / |U| at every token of an explanation; what GRPO gives at those of rollouts."""
    batch, leaf = with_explanations(seed)
    own = (batch["auxiliary"] == 0).nonzero()[:, 0]
    for host in ("grpo(kl_beta=0.1)", "dapo:-filter,-shaping", "dr-grpo", "llds+grpo(kl_beta=0.1)"):
        method = registry.method(f"{host}+expo-explain(norm='{norm}',beta={beta})")
        info = info_of(batch)
        (ours,) = torch.autograd.grad(method.bind(info=info).loss(batch).total, leaf, retain_graph=True)
        plain = registry.method(host)
        (theirs,) = torch.autograd.grad(plain.bind(info=info).loss(batch.select(own)).total, leaf, retain_graph=True)
        assert torch.allclose(ours[own], theirs[own], atol=1e-12), host
        apart = batch["auxiliary"] > 0
        length = batch.mask[apart].sum(1, keepdim=True).clamp(min=1)
        each = beta / int(apart.sum()) / (length if norm == "token_mean" else 1)
        assert torch.allclose(ours[apart], torch.where(batch.mask[apart], -each, 0.0).double(), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pairs_at_the_reference_lose_log_2_with_opposite_gradients(seed: int) -> None:
    batch = random_batch(seed, groups=(2, 2, 2), empty=False)
    better = (torch.arange(6) % 2).double()
    batch = batch.replace(group=torch.arange(6) // 2, rewards=better, ref_logp=batch.logp.detach())
    leaf = batch.stored("logp").detach().clone().requires_grad_()
    loss = explained_pairs(batch.replace(logp=leaf).with_rollouts(explained=2 * better - 1))
    assert float(loss.detach()) == pytest.approx(math.log(2))
    loss.backward()
    assert leaf.grad is not None
    there = batch.mask[:, 0]
    first = leaf.grad[:, 0][there].abs()
    assert torch.allclose(first, first[:1].expand_as(first))
    assert (leaf.grad[:, 0][there] * (2 * better - 1)[there] < 0).all()


@pytest.mark.parametrize(
    ("said", "answer", "whole"),
    [
        ("5 + 6 = 11", "11", "5 + 6 = 11"),
        ("all 111", "11", "all 111\n11"),
        ("because", "11", "because\n11"),
        ("", "11", "\n11"),
        ("is -11 ", "11", "is -11 \n11"),
        ("so (x)", "(x)", "so (x)"),
    ],
)
def test_the_answer_stands_behind_the_explanation_once(said: str, answer: str, whole: str) -> None:
    sampler = FakeSampler(lambda r: 0.0, says=lambda r: said)
    drawn = registry.method("expo-explain").bind().guidance(requests_of(1, 2, answer=[answer]), sampler)  # type: ignore[arg-type]
    (made,) = [r for r in drawn if r.auxiliary]
    assert made.text == whole
    added = [ord(c) for c in whole[len(said) :]]
    assert made.tokens == [5, 6, *added, 1]
    assert made.request.context.tokens == made.prompt.tokens
    assert made.segments[0].logp is None
    assert f"The correct answer is {answer}." in text_of(sampler.drawn[-1])


@pytest.mark.parametrize(("how", "apart"), [({"scope": "all"}, [1, 1]), ({"scope": "all_wrong"}, [1, 0]), ({}, [1, 1])])
def test_whom_it_explains_to(how: dict[str, str], apart: list[int]) -> None:
    sampler = FakeSampler(lambda r: float(r.prompt.id == "1" and r.meta["place"] == 0))
    asked = requests_of(2, 3, answer=["4", "5"])
    drawn = registry.method("expo-explain", **how).bind().guidance(asked, sampler)  # type: ignore[arg-type]
    assert [sum(r.auxiliary and r.prompt.id == key for r in drawn) for key in ("0", "1")] == apart
    assert [r.request for r in drawn if not r.auxiliary] == asked
    pairs = registry.method("expo-explain(variant='dpo')").bind().guidance(asked, sampler)  # type: ignore[arg-type]
    assert [r.fields["explained"] for r in pairs if r.auxiliary] == [1.0, -1.0, 1.0, -1.0]


def test_minibatches_share_explanations_out_and_keep_groups_whole() -> None:
    batch, _ = with_explanations(0, count=4)
    parts = minibatches(batch, 3, generator(0))
    assert sorted(row for part in parts for row in part.tolist()) == list(range(batch.size))
    assert [int((batch["auxiliary"][part] == 0).sum()) for part in parts] == [4, 4, 4]
    assert sorted(int(batch["auxiliary"][part].sum()) for part in parts) == [1, 1, 2]


def trained(root: Path, method: str, **given: Any) -> tuple[list[torch.Tensor], Any]:
    with micro.ready(root, method, group_size=4, steps=1, **given) as (setup, optimizer, progress):
        result = one_step(run_of(setup, optimizer, progress))
        return [p.detach().clone() for p in setup.policy.trainable()], result


def test_a_run_with_weight_0_is_grpo(micro_root: Path) -> None:
    _, grpo = trained(micro_root, "grpo")
    _, expo = trained(micro_root, "grpo+expo-explain(beta=0.0)")
    assert [r.tokens for r in expo.rollouts] == [r.tokens for r in grpo.rollouts]
    for name in ("reward/mean", "rollouts/trained", "advantage/abs_mean"):
        assert expo.metrics[name] == grpo.metrics[name], name
    # Old log-probabilities are the engine's here, and the update's own there.
    assert expo.metrics["grad_norm"] == pytest.approx(grpo.metrics["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("method", ["dapo(max_rounds=1)+expo-explain", "expo-explain(variant='dpo')"])
def test_where_every_group_is_dropped_explanations_still_teach(micro_root: Path, method: str, updates: int) -> None:
    """No answer is right for the reward, so that dynamic sampling leaves nothing."""
    rows = [{**row, "answer": "x"} for row in micro.ROWS]
    before, _ = trained(micro_root, "grpo", data=rows, lr=1e-12)
    after, result = trained(micro_root, method, data=rows, updates=updates)
    assert result.metrics["skipped_updates"] == 0
    assert result.metrics["reward/mean"] == 0
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(before, after, strict=True))


def test_the_answers_likelihood_rises_where_nothing_is_ever_solved(micro_root: Path) -> None:
    rows = [{**row, "answer": "wxyz"[i % 4]} for i, row in enumerate(micro.ROWS)]
    how = "expo-explain(beta=1.0,scope='all_wrong')"
    with micro.ready(micro_root, how, data=rows, group_size=2, steps=25) as (setup, optimizer, progress):
        results = micro.train(setup, optimizer, progress)
    losses = [step.metrics["loss/explanations"] for step in results]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3]), losses
