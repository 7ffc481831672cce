"""SEED-GRPO's identities: doubt makes an update smaller, never larger or of another direction."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.seed_grpo import scale_of, semantic_entropy
from cohort.reductions.groups import group_size, group_sum
from cohort.types import Batch
from tests import micro
from tests.helpers import random_batch
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
SHAPES = st.sampled_from([(4, 4, 4), (2, 5, 3), (3, 1), (8, 7)])
SCALES = ("linear", "exponential", "focal", "reciprocal")
LIKELIHOODS = st.sampled_from(["counts", "length-normalised"])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, f=st.sampled_from(SCALES))
def test_alpha_zero_is_the_centred_host(seed: int, groups: tuple[int, ...], f: str) -> None:
    batch = batch_for("seed-grpo", seed=seed, groups=groups)
    found = registry.method("seed-grpo", alpha=0.0, f=f).bind().assign(batch).advantages
    assert torch.equal(found, registry.method("seed-grpo:advantage").bind().assign(batch).advantages)


@settings(max_examples=15, deadline=None)
@given(alpha=st.floats(0, 5), size=st.integers(2, 16), f=st.sampled_from(SCALES))
def test_the_scale_falls_with_doubt(alpha: float, size: int, f: str) -> None:
    entropy = torch.linspace(0, 1.5 * math.log(size), 40, dtype=torch.float64)
    scale = scale_of(entropy, torch.full_like(entropy, size), f=f, alpha=alpha)
    assert scale[0] == 1
    assert ((scale >= 0) & (scale <= 1)).all()
    assert (scale.diff() <= 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES)
def test_entropy_of_counts_lies_between_zero_and_log_of_the_group(seed: int, groups: tuple[int, ...]) -> None:
    batch = batch_for("seed-grpo", seed=seed, groups=groups)
    entropy = semantic_entropy(batch, likelihood="counts")
    size = group_size(batch.groups, torch.float64)
    assert ((entropy >= 0) & (entropy <= size.log() + 1e-12)).all()
    apart = batch.with_rollouts(answer_id=torch.arange(batch.size))
    assert torch.allclose(semantic_entropy(apart, likelihood="counts"), size.log())
    together = batch.with_rollouts(answer_id=torch.zeros(batch.size, dtype=torch.int64))
    assert not semantic_entropy(together, likelihood="length-normalised").any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, likelihood=LIKELIHOODS)
def test_the_names_of_the_answers_do_not_matter(seed: int, groups: tuple[int, ...], likelihood: str) -> None:
    batch = batch_for("seed-grpo", seed=seed, groups=groups)
    ids = batch["answer_id"]
    renamed = torch.where(ids >= 0, 7 - 2 * ids, ids)
    first, second = (semantic_entropy(batch.with_rollouts(answer_id=x), likelihood=likelihood) for x in (ids, renamed))
    assert torch.allclose(first, second, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES, likelihood=LIKELIHOODS, std=st.booleans())
def test_a_group_keeps_its_balance_and_its_signs(
    seed: int, groups: tuple[int, ...], likelihood: str, std: bool
) -> None:
    batch = batch_for("seed-grpo", seed=seed, groups=groups, empty=False)
    scale = "std" if std else "mean-only"
    method = registry.method("seed-grpo", likelihood=likelihood, adv_scale=scale, f="exponential")
    found = method.bind().assign(batch).advantages[:, 0]
    base = method.only(["advantage"]).bind().assign(batch).advantages[:, 0]
    assert (group_sum(found, batch.groups).abs() < 1e-9).all()
    assert torch.equal(found.sign(), base.sign())
    assert (found.abs() <= base.abs()).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=SHAPES)
def test_likelihood_weights_are_those_of_a_loop(seed: int, groups: tuple[int, ...]) -> None:
    batch = batch_for("seed-grpo", seed=seed, groups=groups)
    got = semantic_entropy(batch, likelihood="length-normalised", no_answer="shared")
    for g in range(batch.groups.count):
        rows = (batch.groups.index == g).nonzero()[:, 0].tolist()
        means = [float(batch.old_logp[i].sum()) / max(1, int(batch.mask[i].sum())) for i in rows]
        total = sum(map(math.exp, means))
        clusters: dict[int, float] = {}
        for i, mean in zip(rows, means, strict=True):
            key = int(batch["answer_id"][i])
            clusters[key] = clusters.get(key, 0.0) + math.exp(mean) / total
        assert float(got[g]) == pytest.approx(-sum(map(math.log, clusters.values())) / len(clusters), abs=1e-9)


def test_rollouts_without_an_answer() -> None:
    batch = Batch.of(torch.ones(4, 1), group=torch.zeros(4), rewards=torch.tensor([1.0, 1, 0, 0]).double())
    batch = batch.with_rollouts(answer_id=torch.tensor([0, 0, -1, -1]))
    own, shared = (semantic_entropy(batch, likelihood="counts", no_answer=how) for how in ("own", "shared"))
    assert float(own) == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert float(shared) == pytest.approx(math.log(2))


def test_only_likelihood_weights_need_log_probabilities() -> None:
    assert "old_logp" not in registry.method("seed-grpo").needs(loss=False)
    assert "old_logp" in registry.method("seed-grpo(likelihood='length-normalised')").needs(loss=False)


def test_answers_are_read_from_the_texts(micro_root: Path) -> None:
    with micro.ready(micro_root, "seed-grpo(likelihood='length-normalised')", steps=1) as (setup, optimizer, progress):
        result = micro.one_step(run_of(setup, optimizer, progress))
        assert result.batch is not None
        ids, said = result.batch["answer_id"].tolist(), [result.rollouts[i].text for i in result.trained]
        numbers = [int(i) if text.strip().isdigit() else None for i, text in zip(ids, said, strict=True)]
        known = {text.strip(): i for text, i in zip(said, numbers, strict=True) if i is not None}
        assert len(known) > 1
        assert len(set(known.values())) == len(known)
        assert all(i == known[t.strip()] for t, i in zip(said, numbers, strict=True) if i is not None)


def test_doubtful_prompts_move_the_policy_less() -> None:
    """Two groups with the same rewards: the one whose wrong answers agree has the larger gradient."""
    batch = random_batch(0, groups=(4, 4), interleave=False, empty=False, drift=0.0)
    rewards = torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 0]).double()
    batch = batch.replace(rewards=rewards).with_rollouts(answer_id=torch.tensor([0, 0, 1, 1, 0, 0, 1, 2]))
    found = registry.method("seed-grpo").bind().assign(batch).advantages[:, 0].abs()
    assert (found[:4] > found[4:]).all()
