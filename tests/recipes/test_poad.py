"""POAD: discount between an agent's actions, not within one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes.critic import gae
from cohort.recipes.poad import action_ends, movement, normalised
from cohort.types import Batch
from tests.traits import batch_for, gradients, with_leaves

SEEDS = st.integers(0, 10_000)
UNIT = st.floats(0, 1)


def episodes(seed: int, *, longest: int = 3) -> Batch:
    """Episodes of several actions with a reward each, and tokens of an environment between them."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(4, 18, dtype=torch.bool)
    for row in mask:
        at = 0
        for _ in range(int(torch.randint(1, 5, (), generator=g))):
            length = int(torch.randint(1, longest + 1, (), generator=g))
            row[at : at + length] = True
            at += length + 1

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    ends = action_ends(mask)
    batch = Batch.of(mask, group=torch.arange(4), rewards=noise(4), logp=noise(4, 18), old_logp=noise(4, 18))
    turns = torch.where(ends, noise(4, 18), 0.0)
    batch = batch.with_tokens(old_values=noise(4, 18), turn_rewards=turns)
    # Two episodes have ended.
    return batch.with_rollouts(next_value=noise(4) * torch.tensor([0.0, 0.0, 1.0, 1.0]))


def advantages(batch: Batch, gamma: float, lam: float) -> Tensor:
    method = registry.method("poad", gamma=gamma, lam=lam, rewards="turn")
    return method.bind().assign(batch).advantages


def actions(batch: Batch, row: int) -> list[list[int]]:
    """Columns of each action of an episode."""
    out: list[list[int]] = []
    for t in batch.mask[row].nonzero()[:, 0].tolist():
        if out and out[-1][-1] == t - 1:
            out[-1].append(t)
        else:
            out.append([t])
    return out


def action_level(batch: Batch, row: int, gamma: float, lam: float) -> list[float]:
    """GAE with an action as one step and V(o_s) before its first token."""
    found, ahead, carried = [], float(batch["next_value"][row]), 0.0
    for columns in reversed(actions(batch, row)):
        value = float(batch["old_values"][row, columns[0]])
        carried = float(batch["turn_rewards"][row, columns[-1]]) + gamma * ahead - value + gamma * lam * carried
        ahead = value
        found.append(carried)
    return found[::-1]


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT)
def test_the_first_token_has_the_advantage_of_its_action(seed: int, gamma: float) -> None:
    """With lambda 1, whatever the values within the action are."""
    batch = episodes(seed)
    inner = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    first = batch.mask & ~torch.nn.functional.pad(batch.mask[:, :-1], (1, 0))
    other = batch.with_tokens(old_values=torch.where(first, batch["old_values"], inner))
    for each in (batch, other):
        got = advantages(each, gamma, 1.0)
        for row in range(batch.size):
            starts = [columns[0] for columns in actions(batch, row)]
            want = torch.tensor(action_level(batch, row, gamma, 1.0), dtype=torch.float64)
            assert torch.allclose(got[row, starts], want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT, UNIT)
def test_actions_of_one_token_are_ppo(seed: int, gamma: float, lam: float) -> None:
    batch = episodes(seed, longest=1)
    got = advantages(batch, gamma, lam)
    for row in range(batch.size):
        starts = [columns[0] for columns in actions(batch, row)]
        assert torch.allclose(got[row, starts], torch.tensor(action_level(batch, row, gamma, lam), dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT)
def test_without_a_discount_it_is_ppo_of_tokens(seed: int, lam: float) -> None:
    batch = episodes(seed)
    tokens = gae(batch["turn_rewards"], batch["old_values"], batch.mask, gamma=1.0, lam=lam, end=batch["next_value"])
    assert torch.allclose(advantages(batch, 1.0, lam), tokens)


@settings(max_examples=15, deadline=None)
@given(SEEDS, UNIT)
def test_errors_within_an_action_sum_to_that_of_the_action(seed: int, gamma: float) -> None:
    batch = episodes(seed)
    errors = advantages(batch, gamma, 0.0)
    for row in range(batch.size):
        for columns, want in zip(actions(batch, row), action_level(batch, row, gamma, 0.0), strict=True):
            assert torch.isclose(errors[row, columns].sum(), torch.tensor(want, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_an_outcome_is_the_reward_of_the_last_action(seed: int) -> None:
    batch = episodes(seed)
    last = torch.zeros_like(batch["turn_rewards"])
    for row in range(batch.size):
        last[row, actions(batch, row)[-1][-1]] = batch.rewards[row]
    given_by_turn = batch.with_tokens(turn_rewards=last).with_rollouts(next_value=torch.zeros(4, dtype=torch.float64))
    outcome = registry.method("poad").bind().assign(batch).advantages
    assert torch.allclose(outcome, advantages(given_by_turn, 0.95, 0.95))
    assert registry.method("poad").needs(loss=False) == {"old_values"}
    assert {"turn_rewards", "next_value"} < registry.method("poad(rewards='turn')").needs(loss=False)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from([0.01, 1.0]))
def test_beyond_the_limit_the_values_alone_are_trained(seed: int, drift: float) -> None:
    def gradient(**hyper: float | None) -> tuple[Batch, dict[str, Tensor]]:
        method = registry.method("poad", **hyper)
        batch, leaves = with_leaves(method, batch_for("poad", seed=seed, drift=drift))
        made = method.bind().prepare(batch).batch
        return made, gradients(method.bind().loss(made).total, leaves)

    (made, stopped), (_, free) = gradient(), gradient(max_kl=None)
    far = bool(movement(made) > 0.02)
    assert far == (drift == 1.0)
    assert torch.equal(stopped["values"], free["values"])
    assert free["logp"].any()
    assert free["entropy"].any()
    for name in ("logp", "entropy"):
        assert torch.equal(stopped[name], torch.zeros_like(free[name]) if far else free[name])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_entries_of_exactly_0_do_not_count_in_the_normalisation(seed: int) -> None:
    batch = batch_for("poad", seed=seed)
    raw = registry.method("poad").bind().assign(batch).advantages
    zeroed = torch.where(torch.arange(raw.shape[1]) == 0, 0.0, raw)
    some = zeroed[batch.mask & (zeroed != 0)]
    if some.numel() < 2:
        return
    scaled = normalised(zeroed, batch.mask)
    inside = scaled[batch.mask & (zeroed != 0)]
    assert abs(float(inside.mean())) < 1e-9
    assert torch.isclose(inside.std(correction=0), torch.ones((), dtype=torch.float64), atol=1e-6)
    assert not scaled[~batch.mask].any()
