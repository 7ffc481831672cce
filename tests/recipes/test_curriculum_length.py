"""Train Long, Think Short: a token budget that shrinks, in the prompt and in the reward."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.curriculum_length import budget, length_reward
from cohort.types import StepInfo
from tests.helpers import access_of, prompt_of, random_batch, request_of, tiny_policy
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
SCHEDULES = st.sampled_from(["exponential", "stepwise", "linear"])


def plan(**changes: Any) -> dict[str, Any]:
    how: dict[str, Any] = dict(registry.method("curriculum-length").shaping[0].hyper["plan"])
    return {**how, **changes}


@settings(max_examples=15, deadline=None)
@given(SCHEDULES, st.integers(1, 500), st.integers(1, 100), st.floats(0.05, 1), st.integers(1, 8), st.integers(1, 700))
def test_the_budget_never_grows_and_ends_where_it_should(
    schedule: str, start: int, end: int, decay: float, drops: int, total: int
) -> None:
    how = plan(schedule=schedule, start=start, end=min(start, end), decay=decay, interval=7, drops=drops, total=total)
    found = [budget(step, **how) for step in range(total + 2)]
    assert found[0] == start
    assert all(1 <= b <= a for a, b in itertools.pairwise(found))
    if schedule != "exponential":
        last = -(-total * drops // (drops + 1))
        assert set(found[last:]) == {min(start, end)}
    assert all(budget(step, **{**how, "total": None}, steps=total) == b for step, b in enumerate(found))


def test_without_decay_the_budget_is_fixed() -> None:
    assert {budget(step, **plan(decay=1.0)) for step in (0, 149, 150, 10**6)} == {256}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.floats(0.1, 3))
def test_the_triangle_has_its_top_at_the_budget_and_lies_under_the_band(target: int, r_max: float) -> None:
    lengths = torch.arange(0, 2 * target + 20).double()
    triangle, band = (length_reward(lengths, target=target, r_max=r_max, shape=s) for s in ("triangle", "band"))
    assert int(triangle.argmax()) == target
    assert triangle[target] == r_max
    assert int((triangle == r_max).sum()) == 1
    assert bool((triangle <= band).all())
    assert bool(((band >= 0) & (band <= r_max)).all())
    assert torch.equal(triangle[target + 1 :], band[target + 1 :])
    assert not triangle[2 * target :].any()
    # Continuous: a token more changes it by a token's share of the budget.
    assert float(triangle.diff().abs().max()) <= r_max / target + 1e-9


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_with_the_outcome_alone_it_is_grpo(seed: int) -> None:
    batch = batch_for("curriculum-length", seed=seed)
    made = registry.method("curriculum-length", lambda_c=1.0, lambda_l=0.0, lambda_f=0.0)
    assert torch.equal(made.bind().shape(batch).rewards, batch["accuracy"])


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_lengths_and_format_speak_in_groups_of_one_outcome(right: float) -> None:
    batch = batch_for("curriculum-length", seed=5, groups=(6,), empty=False)
    batch = batch.replace(accuracy=torch.full((6,), right).double())
    made = registry.method("curriculum-length", start=2, lambda_f=0.0)
    rewards = made.bind().shape(batch).rewards
    assert torch.equal(rewards.argmax(), (batch.lengths - 2).abs().argmin())
    # Three halvings later the budget is one token, and two earn nothing.
    later = registry.method("curriculum-length", start=2, decay=0.5, interval=1, lambda_f=0.0)
    shorter = later.bind(info=StepInfo(step=1)).shape(batch).rewards - 0.3 * right
    assert torch.allclose(shorter, 0.6 * (batch.lengths == 1).double())


def test_tags_are_read_in_the_texts() -> None:
    texts = ["<think>a</think><answer>1</answer>", "<answer>1</answer>", "<think><answer></think></answer>", ""]
    found = registry.method("curriculum-length").bind().on_scored(random_batch(0, groups=(4,)), access_of(texts))
    assert (found["has_think"].tolist(), found["has_answer"].tolist()) == ([1, 0, 0, 0], [1, 1, 0, 0])


def test_the_budget_stands_in_the_prompt() -> None:
    policy = tiny_policy()
    prompt = prompt_of(policy, "2+3=")
    drawn: list[Any] = []

    def draw(requests: Any) -> list[Any]:
        drawn.extend(requests)
        return []

    def tools(step: int) -> Any:
        render = lambda source: policy.renderer.encode(policy.renderer.render(source), start=True)  # noqa: E731
        return SimpleNamespace(draw=draw, render=render, step=step, steps=600)

    made = registry.method("curriculum-length", sentence=" Use {budget} tokens.")
    for step in (0, 150, 599):
        made.bind().guidance([request_of(prompt, seed=step)], tools(step))
    texts = [policy.renderer.decode(request.context) for request in drawn]
    assert [text.removesuffix(" tokens.") for text in texts] == [f"2+3= Use {n}" for n in (256, 179, 87)]
    assert [request.seed for request in drawn] == [0, 150, 599]
    drawn.clear()
    registry.method("curriculum-length", sentence="").bind().guidance([request_of(prompt)], tools(0))
    assert drawn == [request_of(prompt)]
    with pytest.raises(MethodError, match="must say the"):
        registry.method("curriculum-length", sentence="Be short.")
