"""Reg-GRPO: log ratios are fitted to the advantages; hard prompts get a cue."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.advantage import zscore
from cohort.reductions.groups import group_flat, group_sum, token_sum
from cohort.types import Batch, Prompt, Request, Rollout
from tests.helpers import random_batch, rollout_of
from tests.recipes.losses import on_policy, taken

SEEDS = st.integers(0, 10_000)
PURE = {"kl_beta": 0.0, "pred_eps": 0.0, "adv_eps": 1e-12}
KEY = "guidance/cued"


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_loss_is_two_less_twice_the_correlation(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 3, 5), binary=False)
    rho = token_sum(batch.logp - batch.old_logp, batch.mask)
    expected = []
    for label in batch.groups.labels:
        rows = batch.group == label
        correlation = torch.corrcoef(torch.stack([batch.rewards[rows], rho[rows]]))[0, 1]
        expected.append((2 - 2 * correlation) * rows.sum() / batch.size)
    assert torch.allclose(taken("reg-grpo", batch, **PURE)[0], torch.stack(expected).sum())


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0.3, 3), st.floats(-1, 1))
def test_neither_shift_nor_scale_of_the_log_ratios_matters(seed: int, scale: float, shift: float) -> None:
    batch = random_batch(seed, binary=False, empty=False)
    first = torch.zeros_like(batch.mask)
    first[:, 0] = True
    difference = scale * (batch._tokens["logp"] - batch._tokens["old_logp"]) + shift * first
    moved = batch.replace(logp=batch._tokens["old_logp"] + difference)
    loss, grad = taken("reg-grpo", batch, **PURE)
    assert torch.allclose(taken("reg-grpo", moved, **PURE)[0], loss)
    # Hence the gradient has no part along either.
    push = grad.sum(1) / batch.mask.sum(1)
    rho = token_sum(batch.logp - batch.old_logp, batch.mask)
    zero = torch.zeros(batch.groups.count, dtype=torch.float64)
    assert torch.allclose(group_sum(push, batch.groups), zero, atol=1e-9)
    assert torch.allclose(group_sum(push * rho, batch.groups), zero, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-6, 1))
def test_the_first_gradient_is_that_of_reinforce_over_the_root(seed: int, eps: float) -> None:
    batch = on_policy(random_batch(seed))
    _, grad = taken("reg-grpo", batch, kl_beta=0.0, pred_eps=eps)
    each = -2 / batch.size * zscore(batch) / eps**0.5
    assert torch.allclose(grad, torch.where(batch.mask, each[:, None], 0.0))
    # Without the stabiliser there is no derivative; it counts as 0.
    assert not taken("reg-grpo", batch, **PURE)[1].any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_equal_rewards_give_loss_one_and_no_gradient(seed: int) -> None:
    batch = random_batch(seed, binary=False)
    batch = batch.replace(rewards=torch.full_like(batch.rewards, 0.7))
    loss, grad = taken("reg-grpo", batch, **PURE)
    assert torch.allclose(loss, torch.ones_like(loss))
    assert torch.allclose(grad, torch.zeros_like(grad), atol=1e-9)
    assert bool(group_flat(batch.rewards, batch.groups).all())


class Bench:
    """A sampler that draws fixed rewards, 1 for the text of a right answer, and keeps what it was asked."""

    def __init__(self, rewards: dict[str, list[float]]) -> None:
        self.rewards, self.asked = rewards, []

    def draw(self, requests: list[Request]) -> list[Rollout]:
        self.asked.append(list(requests))
        place: dict[str, int] = {}
        out = []
        for request in requests:
            k = place[request.prompt.id] = place.get(request.prompt.id, -1) + 1
            reward = self.rewards[request.prompt.id][k] if "level" not in request.meta else 1.0
            text = "0123456789" if reward == 1 else "wrong"
            out.append(rollout_of(request, [1], text=text, reward=reward, accuracy=float(reward == 1)))
        return out

    def render(self, source: str) -> tuple[int, ...]:
        return tuple(map(ord, source))


def requests_of(rewards: dict[str, list[float]], solution: str | None) -> list[Request]:
    row = {} if solution is None else {"solution": solution}
    return [
        Request(Prompt(key, key, (1,), key, row), (1,), seed, 4)
        for key, values in rewards.items()
        for seed, _ in enumerate(values)
    ]


REWARDS = {"easy": [1.0, 1.0], "middle": [1.0, 0.0], "hard": [0.0, 0.0]}


def drawn(reference: float | None, solution: str | None, **hyper: float) -> tuple[list[Rollout], Bench]:
    method, bench = registry.method("reg-grpo", **hyper), Bench(REWARDS)
    states = {KEY: {"means": [] if reference is None else [[reference]]}}
    rollouts = method.bind(states).guidance(requests_of(REWARDS, solution), bench)
    return rollouts, bench


def test_prompts_below_the_reference_are_drawn_again_with_the_start_of_a_solution() -> None:
    rollouts, bench = drawn(0.8, "abcdefghij")
    again = bench.asked[1]
    assert {request.prompt.id for request in again} == {"middle", "hard"}
    texts = {request.prompt.id: "".join(map(chr, request.context)) for request in again}
    # 0.3 of its own right rollout, and 0.8 of the column's solution.
    assert texts["middle"].endswith(": 012")
    assert texts["hard"].endswith(": abcdefgh")
    assert all(text.startswith(key) for key, text in texts.items())
    assert {r.prompt.id: r.fields["plain_reward"] for r in rollouts} == {"easy": 1.0, "middle": 0.5, "hard": 0.0}
    assert sorted(r.prompt.id for r in rollouts) == ["easy"] * 2 + ["hard"] * 2 + ["middle"] * 2
    assert [r.seed for r in again] == [1, 2, 1, 2]


@pytest.mark.parametrize(("reference", "solution"), [(None, "abc"), (0.2, None), (0.0, "abc")])
def test_without_reference_or_trace_a_group_stays_as_it_is(reference: float | None, solution: str | None) -> None:
    rollouts, bench = drawn(reference, solution)
    assert len(bench.asked) == 1
    assert len(rollouts) == 6


def test_the_strength_scales_the_cue_and_the_whole_is_the_most() -> None:
    _, bench = drawn(0.6, "abcdefghij", strength=0.5)
    assert "".join(map(chr, bench.asked[1][-1].context)).endswith(": abc")
    _, bench = drawn(0.6, "abcdefghij", strength=9.0)
    assert "".join(map(chr, bench.asked[1][-1].context)).endswith(": abcdefghij")


def test_the_buffer_keeps_what_was_earned_without_a_cue() -> None:
    method = registry.method("reg-grpo", window=2)
    states = method.init(size=3)
    for mean in (0.25, 0.5, 0.75):
        batch = Batch.of(
            torch.ones(4, 1), group=torch.tensor([0, 0, 1, 1]), rewards=torch.ones(4), accuracy=torch.ones(4)
        )
        batch = batch.with_rollouts(plain_reward=torch.tensor([mean, mean, 0.0, 0.0]))
        states = method.bind(states).on_rollouts(batch, [])
    assert states[KEY] == {"means": [[0.5, 0.0], [0.75, 0.0]]}


def test_cues_can_be_left_out() -> None:
    assert "guidance" not in registry.method("reg-grpo", augment=False).filled
