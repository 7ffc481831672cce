"""SRPO's identities, who goes which way, and that both ways teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes import advantage, aggregation, surrogate
from cohort.methods import Method, use
from cohort.signals.distill import has_teacher
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro, shown
from tests.golden.distillation import with_teacher
from tests.helpers import access_of
from tests.recipes.steps import update_of
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
GRPO = Method(
    advantage=use(advantage.centred),
    surrogate=use(surrogate.ppo_clip, low=0.2, high=0.28),
    aggregation=use(aggregation.token_mean),
)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0, 50))
def test_weights_of_distilled_tokens_have_mean_1_and_favour_sure_ones(seed: int, beta: float) -> None:
    batch = batch_for("srpo", seed=seed)
    keep = batch.mask & has_teacher(batch)[:, None]
    weight = registry.method(f"srpo(dw_beta={beta!r})").bind().prepare(batch).batch["distil_weight"]
    assert not weight[~keep].any()
    if bool(keep.any()):
        assert float(weight[keep].mean()) == pytest.approx(1.0, abs=1e-9)
        order = torch.argsort(batch["teacher_entropy"][keep])
        assert (weight[keep][order].diff() <= 1e-12).all()
    if beta == 0:
        assert torch.equal(weight[keep], torch.ones_like(weight[keep]))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, drift=st.floats(0, 1))
def test_without_a_teacher_it_is_grpo_over_tokens(seed: int, drift: float) -> None:
    batch = batch_for("srpo", seed=seed, drift=drift)
    none = with_teacher(batch, torch.zeros(batch.size, dtype=torch.bool))
    (loss, grads, _), (want, wanted, _) = update_of("srpo", none), update_of(GRPO, batch)
    assert torch.allclose(loss, want, atol=1e-12)
    assert torch.allclose(grads["logp"], wanted["logp"], atol=1e-12)
    assert not grads["logits"].any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, alpha=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_each_rollout_gets_one_of_the_two_gradients(seed: int, alpha: float) -> None:
    """And a shared denominator; a teacher that is the student gives none."""
    batch = batch_for("srpo", seed=seed)
    has = has_teacher(batch)
    _, grads, ready = update_of(f"srpo(alpha={alpha})", batch)
    assert not grads["logits"][~has].any()
    assert not grads["logp"][has].any()
    assert not ready.advantages[has].any()
    assert torch.allclose(grads["logp"][~has], update_of(GRPO, batch)[1]["logp"][~has], atol=1e-12)
    same = batch.with_tokens(teacher_logits=batch._tokens["logits"])
    _, quiet, _ = update_of(f"srpo(alpha={alpha})", same)
    assert torch.allclose(quiet["logits"], torch.zeros_like(quiet["logits"]), atol=1e-12)
    assert torch.equal(quiet["logp"], grads["logp"])


def test_advantages_come_from_the_whole_group() -> None:
    """Also of the rollouts that are routed away."""
    batch = batch_for("srpo", seed=3)
    for text, stage in (("srpo", advantage.centred), ("srpo(scale_by_std=True)", advantage.zscore)):
        made = registry.method(text).bind().assign(batch)
        assert torch.allclose(made["outcome_advantage"], stage(batch), atol=1e-12)


def test_the_teacher_sees_wrong_rollouts_alone() -> None:
    asked: list[Any] = []

    def log_probs(
        contexts: Any, completions: Any, *, role: str, want: frozenset[str], support: Any
    ) -> dict[str, torch.Tensor]:
        asked.append((role, want, len(contexts), [list(c) for c in completions]))
        return {"entropy": torch.full((len(contexts), max(map(len, completions))), 0.5)}

    access = access_of(["4", "5", "66", "7", "8"], groups=[1, 1, 1, 2, 2], log_probs=log_probs)
    lengths = torch.tensor([len(rollout.tokens) for rollout in access.rollouts])
    batch = Batch.of(
        torch.arange(4) < lengths[:, None],
        group=torch.tensor([1, 1, 1, 2, 2]),
        rewards=torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]),
    )
    made = registry.method("srpo").bind().on_scored(batch, access)
    assert has_teacher(made).tolist() == [False, True, True, False, False]
    assert asked == [("ema", {"entropy"}, 2, [access.rollouts[1].tokens, access.rollouts[2].tokens])]
    assert made["teacher_entropy"].tolist()[1:3] == [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, 0.0]]
    right = batch.replace(rewards=torch.ones(5))
    assert not has_teacher(registry.method("srpo").bind().on_scored(right, access)).any()
    assert len(asked) == 1


def test_a_step_routes_by_success(micro_root: Path) -> None:
    with shown.ready(micro_root, f"srpo(solution_text='{shown.SOLUTION}', ending='')") as parts:
        result = one_step(run_of(*parts))
    batch = result.batch
    assert batch is not None
    has, right = has_teacher(batch), batch.rewards == 1
    siblings = torch.isin(batch.groups.index, batch.groups.index[right])
    assert torch.equal(has, ~right & siblings)
    assert has.any()
    pushed = batch["policy_gradient"].any(1)
    assert not pushed[has].any()
    assert pushed[right].any()


def test_a_policy_that_reads_demonstrations_learns(micro_root: Path) -> None:
    method = f"srpo(solution_text='{shown.SOLUTION}', ending='')"
    with shown.ready(micro_root, method, steps=15) as (setup, optimizer, progress):
        before = micro.success(setup.policy)
        micro.train(setup, optimizer, progress)
        assert micro.success(setup.policy) - before > 0.3
