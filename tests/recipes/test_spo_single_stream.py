"""SPO: one rollout a prompt against a tracked success rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.curriculum import draw_weighted
from cohort.methods import MethodError
from cohort.policies.sequences import Sequences
from cohort.recipes.spo_single_stream import forgetting, initial, sampling_weights
from cohort.training.loop import one_step
from cohort.types import Batch
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "curriculum/prioritised"
LIMITS = {"rho_min": 0.875, "rho_max": 0.96, "d_half": 0.06}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=0, max_size=10), st.floats(0.1, 0.95))
def test_the_first_counts_make_up_the_window(scores: list[float], rho_min: float) -> None:
    counts = initial(scores, rho_min=rho_min)
    assert float(counts.sum()) == pytest.approx(1 / (1 - rho_min))
    assert 0 < counts[0] / counts.sum() < 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 5), min_size=2, max_size=10))
def test_what_drifts_is_forgotten_sooner(drifts: list[float]) -> None:
    rho = forgetting(torch.tensor(sorted(drifts), dtype=torch.float64), **LIMITS)
    assert (rho.diff() <= 0).all()
    assert rho.min() >= 0.875
    assert rho.max() <= 0.96
    assert forgetting(torch.zeros(1), **LIMITS) == pytest.approx(0.96)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 50), st.floats(0.01, 50), st.floats(0, 0.2))
def test_open_prompts_come_most_often(alpha: float, beta: float, explore: float) -> None:
    weight = sampling_weights(torch.tensor([[alpha, beta], [1.0, 1.0]], dtype=torch.float64), explore=explore)
    assert explore <= float(weight[0]) <= float(weight[1]) + 1e-12
    v = alpha / (alpha + beta)
    assert float(weight[0]) == pytest.approx((v * (1 - v)) ** 0.5 + explore)


def test_prompts_are_drawn_in_proportion_and_not_twice() -> None:
    counts = torch.tensor([[1.0, 7.0], [4.0, 4.0], [7.9, 0.1], [0.1, 8.0]], dtype=torch.float64)
    weight, seen, rng = sampling_weights(counts), torch.zeros(4), torch.Generator().manual_seed(0)
    for _ in range(2000):
        seen[draw_weighted(weight, 1, rng)] += 1
    assert torch.allclose(seen / 2000, (weight / weight.sum()).float(), atol=0.04)
    method = registry.method("spo-single-stream")
    rows, _, _ = method.bind({KEY: {**method.init(size=4)[KEY], "counts": counts}}).pick(count=4, rng=rng)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_advantages_have_mean_0_over_the_batch(seed: int) -> None:
    batch = batch_for("spo-single-stream", seed=seed, groups=(1,) * 9)
    made = registry.method("spo-single-stream").bind().assign(batch)
    assert abs(float(made["outcome_advantage"].mean())) < 1e-9
    assert float(made["outcome_advantage"].std()) == pytest.approx(1, abs=1e-6)
    raw = batch.rewards - batch["tracked_value"]
    assert torch.equal(made["outcome_advantage"].argsort(), raw.argsort())


def test_equal_surprises_are_no_advantage() -> None:
    method = registry.method("spo-single-stream")
    for count in (1, 5):
        rewards = torch.ones(count, dtype=torch.float64)
        batch = Batch.of(torch.ones(count, 2), group=torch.arange(count), rewards=rewards)
        batch = batch.with_rollouts(tracked_value=torch.full((count,), 0.7 / 3, dtype=torch.float64))
        assert not method.bind().assign(batch).advantages.any()


def test_every_prompt_has_one_rollout_and_the_tracker_follows_it(micro_root: Path) -> None:
    """Whatever the group size; D is measured again here, under the policy after the update."""
    with micro.ready(micro_root, "spo-single-stream", prompts_per_step=6, group_size=16, steps=4) as parts:
        setup, optimizer, progress = parts
        for step in range(4):
            before = progress.states[KEY]
            result = one_step(run_of(setup, optimizer, progress))
            after = progress.states[KEY]
            assert len(result.rollouts) == len({r.prompt.id for r in result.rollouts}) == 6
            values = before["counts"][:, 0] / before["counts"].sum(1)
            for i, rollout in enumerate(result.rollouts):
                row, key = setup.rows[rollout.prompt.id], str(setup.rows[rollout.prompt.id])
                assert float(result.batch["tracked_value"][i]) == pytest.approx(float(values[row]))  # type: ignore[index]
                drift = 0.0
                if key in before["stored"]:
                    last = before["stored"][key]
                    sequences = Sequences((last["context"].long(),), (last["tokens"].long(),))
                    with torch.no_grad():
                        now = setup.policy.log_probs(sequences, width=len(last["tokens"]))["logp"][0]
                    drift = float((last["logp"] - now).abs().mean())
                    assert step > 0
                assert float(after["drift"][row]) == pytest.approx(drift, abs=1e-5)
                rho = float(forgetting(after["drift"][row], **LIMITS))
                won = torch.tensor([rollout.reward, 1 - rollout.reward], dtype=torch.float64)
                assert torch.allclose(after["counts"][row], rho * before["counts"][row] + won)
                assert after["stored"][key]["tokens"].tolist() == rollout.tokens
                assert after["stored"][key]["logp"].untyped_storage().nbytes() == 4 * len(rollout.tokens)
            untouched = [r for r in range(8) if r not in {setup.rows[x.prompt.id] for x in result.rollouts}]
            assert torch.equal(after["counts"][untouched], before["counts"][untouched])
    assert ((after["counts"] > 0).all(1)).all()


def test_scores_of_earlier_rollouts_begin_the_tracker(micro_root: Path, tmp_path: Path) -> None:
    rows = [{**row, "offline": [1, 0, 0, 0] if row["task"] else []} for row in micro.ROWS]
    method = "spo-single-stream(offline='offline')"
    with micro.ready(micro_root, method, data=rows, prompts_per_step=8, steps=1) as (setup, optimizer, progress):
        result = one_step(run_of(setup, optimizer, progress))
        for i, rollout in enumerate(result.rollouts):
            want = 0.3 if rollout.prompt.row["task"] else 0.5
            assert float(result.batch["tracked_value"][i]) == pytest.approx(want)  # type: ignore[index]
            total = 8.0 if rollout.prompt.row["task"] else 1.0
            row = setup.rows[rollout.prompt.id]
            assert float(progress.states[KEY]["counts"][row].sum()) == pytest.approx(0.96 * total + 1)
    torch.save(progress.states, tmp_path / "states.pt")
    again = torch.load(tmp_path / "states.pt", weights_only=True)
    assert str(again) == str(progress.states)
    with pytest.raises(MethodError, match="rho_min"):
        registry.method("spo-single-stream(rho_min=0.99)")
