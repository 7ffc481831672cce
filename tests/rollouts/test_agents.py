"""Episodes of several agents: each has its own conversation, and a rollout of its own in the step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort import registry
from cohort.engine.native.engine import NativeEngine
from cohort.environments import Observation, Step
from cohort.errors import UsageError
from cohort.rollouts.batching import make_batch
from cohort.rollouts.collect import Collector
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.runner import Runner
from cohort.types import Rollout, StepInfo
from cohort.types.batch import label_of
from cohort.types.replay import concat
from tests.environments.worlds import Slowly, Worlds
from tests.helpers import prompt_of, tiny_policy
from tests.rollouts.test_runner import POLICY, SHORT, requests, same


class Duel:
    """Two players take turns, and hear what the other one said; the longer last word takes the point of the other."""

    def __init__(self, turns: int = 4) -> None:
        self.turns, self.said, self.closed = turns, [], 0  # type: ignore[var-annotated]

    def reset(self, row: Any, seed: int) -> Observation:
        return Observation("you begin", agent="white")

    def step(self, message: Any) -> Step:
        self.said.append(str(message["content"]))
        if len(self.said) < self.turns:
            return Step(
                Observation(f"heard {len(self.said)}", agent=("white", "black")[len(self.said) % 2]), reward=0.0
            )
        return Step(done=True, rewards={"white": 1.0, "black": -1.0}, components={"turns": 1.0})

    def close(self) -> None:
        self.closed += 1


class Boss:
    """A main agent speaks, then a sub-agent that knows nothing of its earlier calls, and so on."""

    def __init__(self, calls: int) -> None:
        self.calls, self.called = calls, 0

    def reset(self, row: Any, seed: int) -> Observation:
        self.called = 0
        return Observation(row["prompt"], agent="main")

    def step(self, message: Any) -> Step:
        turn, self.called = self.called, self.called + 1
        if turn == 2 * self.calls:
            return Step(reward=1.0, done=True, rewards={"sub": 0.5})
        if turn % 2:
            return Step(Observation("it says no", agent="main"), reward=0.1)
        return Step(Observation("do it", agent="sub", conversation=str(turn)))

    def close(self) -> None: ...


def run(world: Any, count: int = 6, **how: Any) -> list[Rollout]:
    return Runner(POLICY, NativeEngine(POLICY), SHORT, Worlds(world), **how).run(requests(count))


@pytest.mark.parametrize("slowly", [False, True])
def test_each_agent_has_its_own_conversation(slowly: bool) -> None:
    worlds = Worlds(lambda k: Slowly(Duel()) if slowly else Duel())
    rollouts = Runner(POLICY, NativeEngine(POLICY), SHORT, worlds).run(requests())
    whole = [rollout for rollout in rollouts if rollout.finished]
    assert whole
    for white in whole:
        assert white.agent == "white"
        (black,) = white.others
        assert (black.agent, black.others, black.episode, white.episode) == ("black", (), white.id, white.id)
        assert black.id != white.id
        assert [len(each.turns) for each in (white, black)] == [2, 2]
        assert POLICY.renderer.whole(white.request.context) == "<|user|>you begin<|assistant|>"
        assert POLICY.renderer.whole(black.request.context) == "<|user|>heard 1<|assistant|>"
        assert [t.messages[1]["content"] for t in (white.turns[0], black.turns[0])] == ["heard 2", "heard 3"]
        assert white.components == {"environment": 1.0, "turns": None}
        assert black.components == {"environment": -1.0, "turns": 1.0}
        assert black.prompt is white.prompt
    assert all(getattr(world, "inner", world).closed == 1 for world in worlds.made)


def test_the_trainer_gives_every_agent_the_samplers_log_probabilities() -> None:
    parts = [part for rollout in run(lambda k: Duel()) for part in rollout.parts]
    width = max(len(part.tokens) for part in parts)
    logp = POLICY.log_probs(POLICY.actions(parts), width=width, temperature=0.9)["logp"].detach()
    for row, part in zip(logp, parts, strict=True):
        mask = torch.tensor(part.mask, dtype=torch.bool)
        assert float((row[: len(mask)] - torch.tensor(part.sampler_logp))[mask].abs().max()) < 1e-4


def test_a_sub_agent_has_a_rollout_for_each_call() -> None:
    for main in run(lambda k: Boss(k % 3)):
        if not main.finished:
            continue
        subs = main.others
        assert len(subs) == len(main.turns) - 1
        assert len({part.id for part in main.parts}) == len(main.parts)
        assert all(sub.agent == "sub" and sub.episode == main.id and len(sub.turns) == 1 for sub in subs)
        assert [sub.components["environment"] for sub in subs] == pytest.approx([0.6] * len(subs))
        assert main.components["environment"] == 1.0
        # The same words in the same conversation, drawn anew.
        assert len({sub.request.context for sub in subs}) <= 1


def test_an_episode_ends_for_all_of_its_agents() -> None:
    class Breaks(Duel):
        def step(self, message: Any) -> Step:
            if len(self.said) == 2:
                raise KeyError("x")
            return super().step(message)

    rollouts = run(lambda k: Breaks())
    broken = [rollout for rollout in rollouts if rollout.status == "failed"]
    assert broken
    for white in broken:
        assert [part.status for part in white.parts] == ["failed"] * 2
        assert [part.components["environment"] for part in white.parts] == [None] * 2
    cut = [rollout for rollout in rollouts if rollout.status == "truncated"]
    assert all(part.status == "truncated" for rollout in cut for part in rollout.parts)


def test_a_name_that_is_not_an_agents_gets_no_reward_and_numbers_are_checked() -> None:
    class Odd(Duel):
        def __init__(self, rewards: dict[str, float]) -> None:
            super().__init__(1)
            self.rewards = rewards

        def step(self, message: Any) -> Step:
            return replace(super().step(message), rewards=self.rewards)

    asked = [rollout for rollout in run(lambda k: Odd({"red": 3.0})) if rollout.finished]
    assert asked
    assert {rollout.components["environment"] for rollout in asked} == {0.0}
    failed = [rollout.error for rollout in run(lambda k: Odd({"white": float("inf")})) if rollout.status == "failed"]
    assert failed
    assert all("the reward of 'white' is a finite number" in error for error in failed)


def test_it_cannot_be_gone_on_from_inside() -> None:
    (white,) = [rollout for rollout in run(lambda k: Duel()) if rollout.others][:1]
    with pytest.raises(UsageError, match="several agents"):
        white.branches(1, [5])
    again = Runner(POLICY, NativeEngine(POLICY), SHORT, Worlds(lambda k: Duel()))
    (rollout,) = again.run(white.replace(others=()).branches(white.turns[-1].start, [5]))
    assert "several agents" in rollout.error


# rows -------------------------------------------------------------------------------------------------------------------


def collected(world: Any, *, count: int = 3, method: str = "grpo") -> tuple[Collector, list[Rollout]]:
    worlds = Worlds(world)
    draws = Collector(POLICY, NativeEngine(POLICY), SHORT, worlds.grader, 90, environments=worlds)
    prompts = [prompt_of(POLICY, text, prompt=text) for text in ("play", "play again")]
    bound = registry.method(method).bind({}, StepInfo(max_new_tokens=90))
    return draws, draws.collect(bound, prompts, [count, count], seed=3)


def test_every_agents_part_becomes_a_rollout_of_the_step() -> None:
    draws, rollouts = collected(lambda k: Duel())
    assert all(rollout.others == () for rollout in rollouts)
    assert {rollout.agent for rollout in rollouts} == {"white", "black"}
    assert draws.take_tokens() == sum(sum(rollout.mask) for rollout in rollouts)
    ended = [rollout for rollout in rollouts if rollout.finished]
    assert {rollout.reward for rollout in ended} == {1.0, -1.0}
    batch = make_batch(rollouts, {})
    # A group for each prompt and agent; an episode has a row of each of its agents.
    assert batch.groups.count == 4
    for label, name in ((label_of("white"), "white"), (label_of("black"), "black")):
        own = [rollout.agent == name for rollout in rollouts]
        assert (batch.agent == label).tolist() == own
    for i, a in enumerate(rollouts):
        for j, b in enumerate(rollouts):
            together = a.episode == b.episode if a.episode else i == j
            assert (batch.episode[i] == batch.episode[j]).item() == together
            assert (batch.group[i] == batch.group[j]).item() == ((a.prompt.id, a.agent) == (b.prompt.id, b.agent))
    twice = concat([batch, batch])
    assert twice.groups.count == 8
    assert twice.episode.unique().numel() == 2 * batch.episode.unique().numel()
    assert torch.equal(twice.agent, torch.cat([batch.agent, batch.agent]))


def test_an_agents_rollout_is_kept_as_it_is() -> None:
    _, rollouts = collected(lambda k: Duel())
    for rollout in rollouts:
        again = restored(stored(rollout), rollout.prompt)
        assert (again.agent, again.episode, again.tokens) == (rollout.agent, rollout.episode, rollout.tokens)
    older = stored(rollouts[0])
    del older["agent"], older["episode"]
    assert (restored(older, rollouts[0].prompt).agent, restored(older, rollouts[0].prompt).episode) == ("", "")


def test_one_agent_with_a_name_draws_what_one_without_draws() -> None:
    class Named(Duel):
        def step(self, message: Any) -> Step:
            self.said.append("")
            done = len(self.said) == 3
            return Step(None if done else Observation("more", agent=self.name), done=done)

        def reset(self, row: Any, seed: int) -> Observation:
            return Observation("begin", agent=self.name)

        name = ""

    class WithName(Named):
        name = "one"

    for a, b in zip(run(lambda k: Named()), run(lambda k: WithName()), strict=True):
        assert same(a, b)
        assert (b.agent, b.others, b.episode) == ("one", (), "")


def test_entropies_that_the_engine_left_out_are_known_for_all_agents() -> None:
    policy = tiny_policy()
    engine = NativeEngine(policy)
    rollouts = Runner(policy, engine, replace(SHORT, top_p=0.9), Worlds(lambda k: Duel()), entropy_tokens=64).run(
        requests()
    )
    for part in (part for rollout in rollouts for part in rollout.parts):
        assert not torch.tensor(part.sampler_entropy).isnan().any()
    assert any(rollout.others for rollout in rollouts)


def test_where_an_environment_cannot_be_lent_all_parts_of_its_episode_fail() -> None:
    class Lending(Duel):
        def lend(self) -> Any:
            raise ValueError("it cannot be sent")

    worlds = Worlds(lambda k: Lending())
    worlds.lends = True
    for rollout in Runner(POLICY, NativeEngine(POLICY), SHORT, worlds).run(requests(4)):
        assert {part.status for part in rollout.parts} == {"failed"}
        assert all("it cannot be sent" in part.error for part in rollout.parts)
