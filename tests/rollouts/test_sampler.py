"""What sampling and guidance are lent: going on from inside rollouts, scoring, asking."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort.axes.trees import grown
from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.environments import SingleTurn
from cohort.rollouts.runner import Runner
from cohort.rollouts.sampler import StepSampler
from cohort.types import Request, Rollout, StepInfo, head
from cohort.types.access import Sampler
from tests.environments.worlds import Guess, Worlds, grader
from tests.helpers import prompt_of, request_of
from tests.rollouts.test_runner import POLICY, SHORT, Broken, Talk, requests, same

LONG = Sampling(temperature=0.9, stop_ids=frozenset())


class Independent:
    """A method that draws every rollout by itself."""

    info = StepInfo()

    def sampling(self, requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
        return sampler.generate(requests)


def lent(worlds: Any = None, sampling: Sampling = SHORT, most: int = 64) -> tuple[Sampler, StepSampler]:
    made = Runner(POLICY, NativeEngine(POLICY), sampling, worlds or Worlds(), version=2)

    def generate(asked: Sequence[Request], *, alone: bool = False) -> list[Rollout]:
        runner = Runner(POLICY, made.engine, sampling, SingleTurn(grader())) if alone else made
        return runner.run(asked)

    step = StepSampler(made, generate, most, None, seed=3)
    return step.sampler(Independent(), torch.Generator().manual_seed(0)), step  # type: ignore[arg-type]


def of_several_turns(sampler: Sampler, count: int = 8) -> Rollout:
    return next(rollout for rollout in sampler.generate(requests(count, 64)) if len(rollout.turns) > 1)


@pytest.mark.parametrize("insert", [(), POLICY.renderer.encode("so: ")])
def test_children_go_on_from_inside_a_rollout(insert: tuple[int, ...]) -> None:
    sampler, _ = lent(SingleTurn(grader()), LONG)
    rollout = sampler.generate(requests(1, 12))[0]
    assert (rollout.parent, len(rollout.tokens)) == (None, 12)
    children = sampler.extend(rollout, 5, 3, insert=insert)
    assert [child.request.seed for child in children] == [rollout.request.seed + 1 + 5 * 3 + k for k in range(3)]
    assert len({child.id for child in (rollout, *children)}) == 4
    asked = []
    for child in children:
        assert child.parent == rollout.id
        assert child.tokens[: 5 + len(insert)] == [*rollout.tokens[:5], *insert]
        assert child.mask == [1] * 5 + [0] * len(insert) + [1] * 12
        assert child.sampler_logp[:5] == rollout.sampler_logp[:5]
        assert child.text == POLICY.renderer.decode(child.tokens)
        asked.append(child.request)
    # A child is what the engine draws behind what stands there.
    for place, drawn in NativeEngine(POLICY).generate(asked, LONG):
        assert children[place].segments[-1].actions == tuple(drawn.tokens)
    logp = POLICY.log_probs(POLICY.actions(children), width=17 + len(insert), temperature=0.9)["logp"].detach()
    mask = torch.tensor([child.mask for child in children], dtype=torch.bool)
    drawn_as = torch.tensor([child.sampler_logp for child in children])
    assert float((logp - drawn_as)[mask].abs().max()) < 1e-4


def test_children_of_several_rollouts_are_drawn_together_and_come_in_order() -> None:
    sampler, _ = lent(SingleTurn(grader()), LONG)
    paths = sampler.generate(requests(3, 8))
    children = sampler.extend(paths, [1, 2, 3], 2)
    assert [child.parent for child in children] == [path.id for path in paths for _ in range(2)]
    one_by_one = [child for path, at in zip(paths, [1, 2, 3], strict=True) for child in sampler.extend(path, at, 2)]
    assert all(map(same, children, one_by_one))
    chosen = sampler.extend(paths, [1, 2, 3], seeds=[7, 8, 9])
    assert [child.request.seed for child in chosen] == [7, 8, 9]
    assert sampler.extend([], []) == []
    with pytest.raises(ValueError, match="of 8 actions does not go on after 9"):
        sampler.extend(paths[0], 9)
    (whole,) = sampler.extend(paths[0], 8)
    assert whole.tokens[:8] == paths[0].tokens


def test_a_child_of_a_later_turn_has_the_turns_before_it() -> None:
    worlds = Worlds()
    sampler, _ = lent(worlds)
    rollout = of_several_turns(sampler)
    second = rollout.turns[1]
    made = len(worlds.made)
    children = sampler.extend(rollout, second.start, 4)
    for child, world in zip(children, worlds.made[made:], strict=True):
        assert child.error == ""
        assert child.turns[0] == rollout.turns[0]
        assert child.turns[1].start == second.start
        assert child.segments[:2] == head(rollout.segments, second.start)
        # The environment has lived through the first turn, too.
        assert world.turn == len([turn for turn in child.turns if turn.reward is not None])
        rewards = [turn.reward for turn in child.turns if turn.reward is not None]
        assert child.components["environment"] == pytest.approx(sum(rewards))
    assert len({tuple(child.tokens) for child in children}) > 1
    # From inside the second turn, too; its beginning belongs to what the policy says in it.
    (inner,) = sampler.extend(rollout, second.start + 1)
    assert inner.turns[1].start == second.start
    assert inner.tokens[: second.start + 1] == rollout.tokens[: second.start + 1]
    assert inner.turns[1].messages[0]["content"][:1] == POLICY.renderer.decode([rollout.tokens[second.start]])
    assert all(len(child.tokens) - len(child.request.prefix) <= 64 for child in children)
    with pytest.raises(ValueError, match="environment speaks: go on after"):
        sampler.extend(rollout, second.start - 1)


def test_a_grandchild_lives_through_all_turns_before_it() -> None:
    sampler, _ = lent(Worlds(lambda k: Talk()), Sampling(temperature=0.9, logit_bias={1: 5.0}))
    rollout = next(r for r in sampler.generate(requests(8, 90)) if len(r.turns) == 3)
    child = next(c for c in sampler.extend(rollout, rollout.turns[1].start, 8) if len(c.turns) == 3)
    (grandchild,) = sampler.extend(child, child.turns[2].start)
    assert grandchild.error == ""
    assert (grandchild.parent, child.parent) == (child.id, rollout.id)
    assert grandchild.turns[:2] == child.turns[:2]
    assert grandchild.tokens[: child.turns[2].start] == child.tokens[: child.turns[2].start]


def test_an_environment_that_does_not_repeat_itself_cannot_be_gone_on_with() -> None:
    count = itertools.count()

    class Moody(Guess):
        def step(self, message: Any) -> Any:
            step = super().step(message)
            return step if step.done else type(step)(f"{step.observation} {next(count)}", step.reward, step.components)

    sampler, _ = lent(Worlds(lambda k: Moody()))
    rollout = of_several_turns(sampler)
    (child,) = sampler.extend(rollout, rollout.turns[1].start)
    assert child.status == "failed"
    assert "answered differently" in child.error


def test_what_cannot_be_scored_is_left_out_and_kept_aside() -> None:
    worlds = Worlds(lambda k: Broken("step", KeyError("x")) if k % 2 else Guess())
    sampler, step = lent(worlds)
    drawn = sampler.draw(requests(4))
    assert len(drawn) == len(step.unscored) == 2
    assert all(rollout.scored for rollout in drawn)
    assert all(rollout.status == "failed" for rollout in step.unscored)
    assert len(sampler.grade([*drawn, *step.unscored])) == 2
    assert [rollout.reward for rollout in drawn] == [rollout.components["environment"] for rollout in drawn]


def test_no_environment_answers_what_the_policy_is_asked_beside() -> None:
    worlds = Worlds()
    sampler, _ = lent(worlds)
    assert len(sampler.ask(["1+1?", [{"role": "user", "content": "2+2?"}]])) == 2
    assert not worlds.made


def test_children_of_children_draw_with_seeds_of_their_own() -> None:
    """The second child's first child and the first child's second one would meet, were seeds sums."""
    sampler, _ = lent(SingleTurn(grader()), LONG)
    rollout = sampler.generate(requests(1, 12))[0]
    children = sampler.extend(rollout, 3, 3)
    grandchildren = [each for child in children for each in sampler.extend(child, 3, 3)]
    assert len({each.id for each in [rollout, *children, *grandchildren]}) == 13


def test_children_go_on_where_the_environment_shows_more_than_the_prompt() -> None:
    class Showing(Guess):
        def reset(self, row: Any, seed: int) -> str:  # type: ignore[override]
            return f"{super().reset(row, seed)} think of {self.digit}"

    sampler, _ = lent(Worlds(lambda _: Showing()), LONG)
    rollout = sampler.generate(requests(1, 40))[0]
    assert rollout.request.context.tokens != rollout.prompt.tokens
    (child,) = sampler.extend(rollout, 1, 1)
    assert (child.error, child.request.context, child.tokens[:1]) == ("", rollout.request.context, rollout.tokens[:1])


@pytest.mark.parametrize("history", ["append", "rebuild"])
def test_the_environment_answers_a_turn_that_is_over_before_the_policy_goes_on(history: Any) -> None:
    """Where a limit came between a turn and its answer, the policy must not speak behind its own stop token."""
    worlds = Worlds(lambda k: Guess(9))
    made = Runner(POLICY, NativeEngine(POLICY), SHORT, worlds, history=history)
    asked = [request_of(prompt_of(POLICY, "guess", prompt="guess"), seed=k, count=30) for k in range(12)]
    cut = [r for r in made.run(asked) if r.status == "truncated" and r.tokens[-1] == 1]
    later = [r for r in cut if len(r.turns) > 1]
    assert cut
    assert later
    for rollout in cut:
        (request,) = rollout.branches(len(rollout.tokens), [7])
        (child,) = made.run([replace(request, max_new_tokens=60)])
        assert child.error == ""
        assert [turn.end for turn in child.turns[: len(rollout.turns)]] == [turn.end for turn in rollout.turns]
        answered = child.turns[len(rollout.turns) - 1]
        assert [message["role"] for message in answered.messages] == ["assistant", "user"]
        assert len(child.turns) > len(rollout.turns)
        # The sum of all turns' rewards, each once.
        rewards = [turn.reward for turn in child.turns if turn.reward is not None]
        assert child.components["environment"] == pytest.approx(sum(rewards))
        writers = [segment.writer for segment in child.segments]
        if history == "append":
            assert all(a != b for a, b in itertools.pairwise(writers))
        assert child.context.pieces(len(child.tokens))[0][:2] == (
            0,
            child.turns[1].start if child.context.rebuilt else len(child.tokens),
        )
        logp = POLICY.log_probs(POLICY.actions([child]), width=len(child.tokens), temperature=0.9)["logp"].detach()[0]
        mask = torch.tensor(child.mask, dtype=torch.bool)
        assert float((logp - torch.tensor(child.sampler_logp))[mask].abs().max()) < 1e-4


def test_a_tree_grows_over_turns_and_none_behind_a_stop_token() -> None:
    sampler, _ = lent(Worlds(lambda k: Guess(9)))
    paths = grown(requests(4, 120), sampler, branching=(2, 2), segment_tokens=30)
    assert max(len(path.turns) for path in paths) > 2
    for path in paths:
        stops = [at for at, token in enumerate(path.tokens) if token == 1 and path.mask[at]]
        assert stops == [turn.end - 1 for turn in path.turns if path.tokens[turn.end - 1] == 1]
