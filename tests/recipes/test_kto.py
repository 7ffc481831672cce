"""KTO's identities, its mismatched completions, and the weights of its classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.objective import sequence_log_ratio
from cohort.recipes.kto import class_weights, desirable, episode_labels, rounds
from cohort.signals.mismatch import mismatched, score_mismatched
from tests.helpers import access_of, random_batch
from tests.recipes.steps import update_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
KEY = "objective/prospect"


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, up=st.floats(0.1, 3), down=st.floats(0.1, 3))
def test_at_the_reference_the_loss_is_half_the_mean_weight(seed: int, up: float, down: float) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch["ref_logp"]).with_rollouts(mismatched_log_ratio=torch.zeros_like(batch.rewards))
    loss, _, _ = update_of(f"kto(desirable_weight={up!r}, undesirable_weight={down!r})", batch)
    weight = torch.where(batch.rewards >= 0.5, up, down)
    assert float(loss) == pytest.approx(float(weight.double().mean()) / 2, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, beta=st.floats(0.05, 2))
def test_the_gradient_saturates_and_never_pushes_the_wrong_way(seed: int, beta: float) -> None:
    batch = batch_for("kto", seed=seed, drift=3.0)
    _, grads, _ = update_of(f"kto(beta={beta!r})", batch)
    z0 = batch["mismatched_log_ratio"].mean().clamp(min=0)
    s = torch.sigmoid(beta * (sequence_log_ratio(batch) - z0))
    sign = torch.where(desirable(batch, threshold=0.5), -1.0, 1.0)
    want = torch.where(batch.mask, (sign * beta * s * (1 - s) / batch.size)[:, None], 0.0)
    assert torch.allclose(grads["logp"], want, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_reference_point_is_never_below_0(seed: int) -> None:
    batch = random_batch(seed)
    low = batch.with_rollouts(mismatched_log_ratio=-batch["truncated"] - 0.3)
    none = batch.with_rollouts(mismatched_log_ratio=torch.zeros_like(batch.rewards))
    assert torch.equal(update_of("kto", low)[0], update_of("kto", none)[0])
    high = batch.with_rollouts(mismatched_log_ratio=torch.ones_like(batch.rewards))
    assert not torch.equal(update_of("kto", high)[0], update_of("kto", none)[0])


def test_a_completion_is_desirable_by_threshold_or_against_its_group() -> None:
    batch = random_batch(0, groups=(3, 2))
    rewards = torch.tensor([0.2, 0.4, 0.9, 0.7, 0.7], dtype=torch.float64)
    batch = batch.replace(rewards=rewards, group=torch.tensor([0, 0, 0, 1, 1]))
    assert desirable(batch, threshold=0.4).tolist() == [False, True, True, True, True]
    assert desirable(batch, threshold=None).tolist() == [False, False, True, False, False]


@settings(max_examples=30, deadline=None)
@given(good=st.integers(1, 1000), bad=st.integers(1, 1000), target=st.floats(0.5, 2))
def test_class_weights_balance_the_classes(good: int, bad: int, target: float) -> None:
    up, down = class_weights(good, bad, target=target)
    assert up * good == pytest.approx(target * down * bad)
    assert 1.0 in (up, down)


def test_balance_follows_what_the_run_has_seen() -> None:
    method = registry.method("kto(balance=1.0)")
    batch = batch_for("kto", seed=1)
    good = int((batch.rewards >= 0.5).sum())
    states = method.init(size=3)
    for steps in (1, 2):
        states = method.bind(states).on_rollouts(batch, [])
        assert states[KEY] == {"desirable": steps * good, "undesirable": steps * (batch.size - good)}
    up, down = class_weights(good, batch.size - good, target=1.0)
    given_ = f"kto(desirable_weight={up!r}, undesirable_weight={down!r})"
    assert torch.allclose(update_of(method, batch, states)[0], update_of(given_, batch)[0])


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, groups=st.sampled_from([(4, 4), (1, 3, 2), (1, 1, 1)]))
def test_a_mismatched_completion_is_of_another_prompt(seed: int, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    other = mismatched(batch.groups)
    assert ((batch.groups.index[other] - batch.groups.index) % len(groups) == 1).all()
    # As many different ones as the next prompt has, or as this one can take.
    for g, size in enumerate(torch.bincount(batch.groups.index).tolist()):
        taken = other[batch.groups.index == g]
        assert len(set(taken.tolist())) == min(size, int((batch.groups.index == (g + 1) % len(groups)).sum()))


def test_mismatched_completions_are_scored_under_policy_and_reference() -> None:
    asked: list[Any] = []

    def log_probs(contexts: Any, completions: Any, *, role: str) -> dict[str, torch.Tensor]:
        asked.append((role, [list(c) for c in contexts], [list(c) for c in completions]))
        width = max(map(len, completions))
        value = torch.zeros(len(completions), width)
        for i, completion in enumerate(completions):
            value[i, : len(completion)] = torch.tensor([float(token) for token in completion])
        return {"logp": value if role == "policy" else value / 2}

    access = access_of(["12", "3", "456"], groups=[7, 8, 9], log_probs=log_probs)
    tokens = [rollout.tokens for rollout in access.rollouts]
    mask = torch.zeros(3, 5, dtype=torch.bool)
    for row, own in zip(mask, tokens, strict=True):
        row[: len(own)] = True
    mask[1, 0] = False  # written by a tool
    batch = random_batch(0, groups=(1, 1, 1), width=5).replace(mask=mask, group=torch.arange(3))
    found = score_mismatched(batch, access)["mismatched_log_ratio"]
    assert [role for role, _, _ in asked] == ["policy", "reference"]
    assert asked[0][2] == [tokens[1], tokens[2], tokens[0]]
    assert asked[0][1] == [list(rollout.request.context) for rollout in access.rollouts]
    assert found.tolist() == [sum(tokens[1][1:]) / 2, sum(tokens[2]) / 2, sum(tokens[0]) / 2]
    # Where the model's context is short, what is scored is cut.
    limit = len(asked[0][1][0]) + 2
    short = score_mismatched(batch, replace(access, context_length=limit))["mismatched_log_ratio"]
    assert float(short[1]) == sum(tokens[2][:2]) / 2
    one = batch.replace(group=torch.zeros(3, dtype=torch.int64))
    assert score_mismatched(one, access)["mismatched_log_ratio"].tolist() == [0, 0, 0]


def test_two_players_in_rounds() -> None:
    reached, exposure = torch.tensor([1, 1, 0]), torch.tensor([0, 3, 3])
    blue, red = episode_labels(reached, exposure, limit=1)
    assert blue.tolist() == [True, False, False]
    assert red.tolist() == [False, True, True]
    assert [row["blue_reference"] for row in rounds(3)] == [0, 1, 2]
    assert [row["red_reference"] for row in rounds(3, reference="initial")] == [0, 0, 0]
    assert [row["red_opponent"] for row in rounds(3, reference="initial")] == [0, 1, 2]
