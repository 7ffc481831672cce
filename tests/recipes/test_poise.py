"""POISE: a linear probe of the policy's hidden states predicts the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.errors import UsageError
from cohort.recipes.poise import FEATURES, entropy_features
from cohort.reductions.groups import leave_one_out_mean
from cohort.signals.probing import fit, pooled, predict
from cohort.signals.spans import thought_and_answer
from cohort.training.loop import one_step
from cohort.types import Batch, StepInfo
from tests import micro
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "advantage/cross_baseline"


def advantages(batch: Batch) -> Tensor:
    return registry.method("poise").bind({KEY: {}}).assign(batch)["outcome_advantage"]


def rows(seed: int, count: int = 30, width: int = 5) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    parts = (torch.randn(count, width, generator=g).double(), torch.randn(count, width, generator=g).double())
    return parts, torch.rand(count, 3, generator=g).double(), torch.rand(count, generator=g).double()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_baseline_does_not_depend_on_the_rollout_itself(seed: int) -> None:
    batch = batch_for("poise", seed=seed, groups=(2, 3, 4))
    first = advantages(batch)
    moved = batch["value_predictions"].clone()
    moved[0] += 0.5
    other = batch.with_rollouts(value_predictions=moved)
    assert torch.isclose(advantages(other)[0], first[0])
    same_group = batch.group == batch.group[0]
    same_group[0] = False
    assert (advantages(other)[same_group] < first[same_group]).all()
    raised = batch.replace(rewards=batch.rewards + torch.nn.functional.one_hot(torch.tensor(0), batch.size))
    assert torch.allclose(advantages(raised)[0], first[0] + 1)
    assert torch.allclose(advantages(raised)[1:], first[1:])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_with_the_rewards_for_predictions_or_none_it_is_rloo(seed: int, unknown: bool) -> None:
    batch = batch_for("poise", seed=seed, binary=False)
    known = torch.full_like(batch.rewards, torch.nan) if unknown else batch.rewards
    want = registry.method("rloo(kl_beta=0.0)").bind().assign(batch)["outcome_advantage"]
    assert torch.allclose(advantages(batch.with_rollouts(value_predictions=known)), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_groups_of_equal_rewards_are_not_wasted(seed: int) -> None:
    batch = batch_for("poise", seed=seed)
    equal = batch.replace(rewards=torch.ones_like(batch.rewards))
    assert (advantages(equal) != 0).all()
    with pytest.raises(ValueError, match="group_size"):
        advantages(batch.replace(group=torch.arange(batch.size)))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_probe_shrinks_to_the_mean_and_does_not_depend_on_signs(seed: int) -> None:
    parts, plain, targets = rows(seed)
    how: dict[str, Any] = {"dims": (3, 4)}
    held = predict(fit(parts, plain, targets, alpha=1e12, **how), parts, plain)
    assert torch.allclose(held, targets.mean().expand(30), atol=1e-6)
    normal = predict(fit(parts, plain, targets, alpha=1.0, **how), parts, plain)
    mirrored = tuple(-part for part in parts)
    assert torch.allclose(predict(fit(mirrored, plain, targets, alpha=1.0, **how), mirrored, plain), normal)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    shuffled = fit(tuple(part[order] for part in parts), plain[order], targets[order], alpha=1.0, **how)
    assert torch.allclose(predict(shuffled, parts, plain), normal, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_probe_finds_what_is_linear(seed: int) -> None:
    parts, plain, _ = rows(seed)
    targets = parts[0] @ torch.arange(5.0).double() - 2 * parts[1][:, 0] + plain[:, 2] + 0.3
    access = fit(parts, plain, targets, dims=(5, 5), alpha=1e-8)
    fresh, also, _ = rows(seed + 1)
    want = fresh[0] @ torch.arange(5.0).double() - 2 * fresh[1][:, 0] + also[:, 2] + 0.3
    assert torch.allclose(predict(access, fresh, also), want, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_probe_of_few_or_constant_rows_stays_tame(count: int) -> None:
    """Directions that no row has are not blown up in new rows."""
    parts, plain, targets = rows(0, count, width=8)
    access = fit(parts, torch.full_like(plain, 0.3), targets, dims=(32, 64), alpha=1.0)
    fresh, _, _ = rows(1, 20, width=8)
    got = predict(access, fresh, torch.full((20, 3), 0.3).double())
    assert torch.isfinite(got).all()
    assert got.abs().max() < 20
    assert count > 1 or torch.allclose(got, targets.expand(20))


def observed(states: dict[str, Any], values: Sequence[float], **hyper: object) -> dict[str, Any]:
    """States after a step of pairs whose features are these numbers and whose rewards are their signs."""
    x = torch.tensor(values).float()
    batch = Batch.of(torch.ones(len(x), 1), group=torch.arange(len(x)) // 2, rewards=(x > 0).double())
    batch = batch.with_rollouts(**dict.fromkeys(FEATURES[:2], x[:, None]), entropy_feature=torch.zeros(len(x), 3))
    return registry.method("poise", **hyper).bind(states, StepInfo(step=99)).on_rollouts(batch, [])


def test_the_oldest_rows_leave_the_buffer() -> None:
    states: dict[str, Any] = {KEY: {}}
    for k in range(3):
        states = observed(states, [4 * k + 1.0, 4 * k + 2.0, -4 * k - 3.0, -4 * k - 4.0], buffer=6)
    held = states[KEY][""]
    assert held["prompt_feature"][:, 0].tolist() == [-7.0, -8.0, 9.0, 10.0, -11.0, -12.0]
    # The target of a rollout is the reward of the other one.
    assert held["target"].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert torch.isfinite(held["probe"]["weights"]).all()


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>ab</think>cd", "ab", "cd"),
        ("ab</think>cd", "ab", "cd"),
        ("<think>ab", "ab", None),
        ("abcd", None, None),
    ],
)
def test_thought_and_answer(text: str, thought: str | None, answer: str | None) -> None:
    spans = thought_and_answer(text)
    assert [None if s is None else text[s[0] : s[1]] for s in spans] == [thought, answer]


def test_features_of_what_is_missing_are_0() -> None:
    states = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(pooled(states, 2), states[2:].mean(0))
    assert torch.equal(pooled(states, 9), states.mean(0))
    assert not pooled(states[:0], 3).any()
    entropy, whole = torch.ones(2, 4), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    part = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    assert entropy_features(entropy, whole, part, ~part).tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_predictions_are_those_of_the_step_before(micro_root: Path) -> None:
    method = "poise(bootstrap_steps=2, alpha=1.0, buffer=40, domain='task')"
    with micro.ready(micro_root, method, steps=4, group_size=2, prompts_per_step=8) as (setup, optimizer, progress):
        for step in range(4):
            before = progress.states[KEY]
            result = one_step(run_of(setup, optimizer, progress))
            batch = result.batch
            assert batch is not None
            expected = batch["value_predictions"]
            if step < 2:
                assert expected.isnan().all()
                assert torch.allclose(
                    batch["outcome_advantage"], batch.rewards - leave_one_out_mean(batch.rewards, batch.groups)
                )
                continue
            tasks = [result.rollouts[i].prompt.row["task"] for i in result.trained]
            assert set(before) == {"0", "1"}
            for name in ("0", "1"):
                here = torch.tensor([str(task) == name for task in tasks])
                prompt, response, scalars = (batch[feature][here] for feature in FEATURES)
                want = predict(before[name]["probe"], (prompt, response), scalars).clamp(0, 1)
                assert torch.allclose(expected[here].double(), want)
                assert len(progress.states[KEY][name]["target"]) == min(40, 8 * (step + 1))
            want = batch.rewards - leave_one_out_mean(expected.to(batch.rewards.dtype), batch.groups)
            assert torch.allclose(batch["outcome_advantage"], want)


def test_hidden_states_are_those_of_one_layer(micro_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the rollouts are cut into passes; a model without the usual layer gives one of its own."""
    from cohort.signals import probing

    with micro.ready(micro_root, "poise(pool_last=2)", steps=1, group_size=2, prompts_per_step=3) as parts:
        setup = parts[0]
        monkeypatch.setattr(probing, "TOKENS", 10)
        result = one_step(run_of(*parts))
        assert result.batch is not None
        assert setup.policy.base.config.num_hidden_layers == 1
    with micro.ready(micro_root, "poise(pool_last=2)", steps=1, group_size=2, prompts_per_step=3) as (setup, _, _):
        for i, rollout in enumerate([result.rollouts[k] for k in result.trained]):
            context, tokens = list(rollout.request.context), rollout.tokens
            (states,) = setup.policy.hidden_states([[*context, *tokens]], layer=1)
            end = len(context)
            assert torch.allclose(result.batch["prompt_feature"][i], states[end - 2 : end].mean(0), atol=1e-5)
            assert torch.allclose(result.batch["response_feature"][i], states[end:][-2:].mean(0), atol=1e-5)
            entropy = sum(rollout.sampler_entropy) / len(tokens)
            assert result.batch["entropy_feature"][i].tolist() == pytest.approx([entropy, 0.0, 0.0], abs=1e-5)
    with micro.ready(micro_root, "poise(layer=7)", group_size=2) as parts, pytest.raises(UsageError, match="layer 7"):
        one_step(run_of(*parts))
