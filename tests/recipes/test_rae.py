"""RAE: a moving average of each role's rewards as its baseline."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.rae import follow
from cohort.rollouts.batching import make_batch
from cohort.types import Batch, StepInfo
from cohort.types.batch import label_of
from tests.rollouts.test_agents import Duel, collected

NUMBERS = st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=20)


def played(games: list[tuple[float, int, int]]) -> Batch:
    rewards, role, game = (torch.tensor(each) for each in zip(*games, strict=True))
    made = Batch.of(torch.ones(len(games), 1), group=torch.arange(len(games)), rewards=rewards.double())
    return made.with_rollouts(agent=role, game=game)


@settings(max_examples=30, deadline=None)
@given(NUMBERS, st.floats(0, 1), st.floats(-1, 1))
def test_baselines_follow_rollout_by_rollout(games: list[tuple[float, int, int]], decay: float, start: float) -> None:
    before = {"0/1": start}
    met, after = follow(played(games), before, decay)
    now, want = dict(before), []
    for reward, role, game in games:
        key = f"{game}/{role}"
        want.append(now.get(key, 0.0))
        now[key] = decay * want[-1] + (1 - decay) * torch.tensor(reward).double().item()
    assert torch.allclose(met, torch.tensor(want, dtype=torch.float64), atol=1e-6)
    assert after.keys() == now.keys()
    assert all(abs(after[key] - now[key]) < 1e-6 for key in now)
    # A baseline that keeps all of itself never moves; one that keeps nothing is the last reward.
    assert torch.allclose(
        follow(played(games), before, 1.0)[0], torch.tensor([before.get(f"{g}/{r}", 0.0) for _, r, g in games]).double()
    )
    last = {f"{game}/{role}": reward for reward, role, game in games}
    assert all(abs(follow(played(games), before, 0.0)[1][key] - last[key]) < 1e-6 for key in last)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=10), st.floats(0, 1))
def test_of_a_zero_sum_game_the_baselines_stay_opposite(results: list[float], decay: float) -> None:
    games = [(sign * result, role, 0) for result in results for role, sign in ((0, 1), (1, -1))]
    _, after = follow(played(games), {}, decay)
    assert abs(after["0/0"] + after["0/1"]) < 1e-9


def test_in_self_play_each_role_has_its_own() -> None:
    _, rollouts = collected(lambda k: Duel(), method="rae")
    rollouts = [rollout for rollout in rollouts if rollout.scored]
    access = SimpleNamespace(rollouts=rollouts, column=lambda name: ["x"] * len(rollouts))
    method = registry.method("rae(decay=0.5)")
    states = method.init(size=2)
    for _ in range(12):
        bound = method.bind(states, StepInfo())
        batch = bound.on_scored(make_batch(rollouts, {}), access)  # type: ignore[arg-type]
        states = bound.on_rollouts(batch, rollouts)
    held = states["advantage/against_role"]["baselines"]
    assert set(held) == {f"0/{label_of('white')}", f"0/{label_of('black')}"}
    # White always wins, and is given no credit for it any more.
    assert held[f"0/{label_of('white')}"] > 0.9
    assert bound.assign(batch)["outcome_advantage"][torch.tensor([r.finished for r in rollouts])].abs().max() < 0.1


def test_earlier_turns_can_count_less() -> None:
    batch = played([(1.0, 0, 0)]).with_rollouts(role_baseline=torch.zeros(1))
    batch = batch.replace(mask=torch.ones(1, 4)).with_tokens(turn=torch.tensor([[0, 0, 1, 2]]))
    advantages = registry.method("rae(gamma=0.5)").bind().assign(batch).advantages
    assert advantages.tolist() == [[0.25, 0.25, 0.5, 1.0]]
