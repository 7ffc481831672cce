"""Where a step's rollouts come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cohort import registry
from cohort.methods import Method, use
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.sources import Drawn, Mixed, Replayed, Stateless, restore, snapshot
from cohort.types import Prompt, Rollout, Segment, StepInfo, Turn, grouped
from cohort.types.declare import hooks
from cohort.types.support import Rule, Support
from tests import micro
from tests.helpers import request_of
from tests.stepping import run_of, sample

PROMPTS = {name: Prompt(name, name, (1,), name) for name in "abcdefgh"}


def group(name: str, step: int, size: int = 2) -> list[Rollout]:
    """Rollouts of a prompt that the weights after `step` steps drew."""
    return [
        Rollout(
            request_of(PROMPTS[name], seed=10 * step + k),
            (Segment((3, 1), logp=(-0.5, -0.1), version=step),),
            id=f"{name}{step}{k}",
        )
        for k in range(size)
    ]


class InTurn(Stateless):
    """A group of the next two prompts each step."""

    def next(self, info: StepInfo, states: Mapping[str, Any]) -> Drawn:
        names = list(PROMPTS)
        picked = [names[(2 * info.step + k) % len(names)] for k in range(2)]
        rollouts = [rollout for name in picked for rollout in group(name, info.step)]
        return Drawn(rollouts, rollouts, states, tokens=4)


def steps(source: Replayed, count: int, *, start: int = 0) -> list[list[str]]:
    """Ids of the rollouts of some steps."""
    out = []
    for step in range(start, start + count):
        drawn = source.next(StepInfo(step=step, seed=5), {})
        out.append([rollout.id for rollout in [*drawn.rollouts, *drawn.replayed]])
        source.release(drawn.chosen)
    return out


def replaying(count: int = 2, most: int = 4) -> Replayed:
    return Replayed(InTurn(), count, most, PROMPTS)


def test_groups_of_earlier_steps_come_again_as_they_were_drawn() -> None:
    source = replaying()
    first = source.next(StepInfo(step=0, seed=5), {})
    assert not first.replayed
    source.release(first.chosen)
    second = source.next(StepInfo(step=1, seed=5), {})
    assert second.replayed == second.chosen[-4:]
    assert sorted(r.id for r in second.replayed) == ["a00", "a01", "b00", "b01"]
    assert {version for r in second.replayed for version in r.versions} == {0}
    assert {version for r in second.rollouts for version in r.versions} == {1}
    # What was sampled is counted once.
    assert second.tokens == 4


def test_a_prompt_that_was_drawn_anew_is_not_repeated_and_the_oldest_groups_leave() -> None:
    source = replaying(count=9, most=4)
    ids = steps(source, 12)
    for step, drawn in enumerate(ids):
        fresh = {name[0] for name in drawn[:4]}
        again = drawn[4:]
        assert not fresh & {name[0] for name in again}
        # Four groups are kept: those of the two steps before.
        assert all(int(name[1:-1]) >= step - 2 for name in again)
    assert len(source.held) == 4


def test_what_is_repeated_depends_on_seed_and_step_and_survives_a_checkpoint(tmp_path: Any) -> None:
    whole = steps(replaying(), 8)
    assert whole == steps(replaying(), 8)
    first = replaying()
    begun = steps(first, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = replaying()
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.held == first.held
    assert begun + steps(second, 5, start=3) == whole


def test_a_kept_rollout_comes_back_whole() -> None:
    support = Support(Rule({5: 1.5}, 2, frozenset({1})), [None, None])
    rollout = Rollout(
        replace(request_of(PROMPTS["a"], seed=7), parent="w", environment_seed=9),
        (
            Segment((4, 5), logp=(-0.25, -1.5), entropy=(0.5, 0.75), support=support, version=3),
            Segment((6,), "environment"),
        ),
        status="truncated",
        text="45",
        id="x",
        turns=(Turn(0, 2, ({"role": "assistant", "content": "45"},), 0.5),),
        components={"exact": 1.0, "length": None},
        reward=1.0,
        accuracy=1.0,
        fields={"preference": 1.0, "values": [0.1, 0.2, 0.3]},
    )
    again = restored(stored(rollout), PROMPTS["a"])
    assert again == rollout
    assert again.support is not None
    assert rollout.support is not None
    assert (again.support.rule, again.support.candidates) == (rollout.support.rule, rollout.support.candidates)


def test_a_mix_hands_the_states_on_and_keeps_what_stands_beside() -> None:
    class Counting(Stateless):
        def next(self, info: StepInfo, states: Mapping[str, Any]) -> Drawn:
            return Drawn([], [], {**states, "n": {"count": states["n"]["count"] + 1}}, auxiliary=group("h", 0))

    mixed = Mixed([InTurn(), Counting(), Counting()])
    drawn = mixed.next(StepInfo(step=0), {"n": {"count": 0}})
    assert drawn.states["n"] == {"count": 2}
    assert [r.id for r in drawn.auxiliary] == ["h00", "h01"] * 2
    assert [r.prompt.id for r in drawn.chosen] == ["a", "a", "b", "b"]


def test_groups_of_the_step_are_picked_until_enough_pass_the_filter() -> None:
    """Refilling picks prompts again in place of those whose groups the filter removed."""
    from cohort.rollouts.sources import Sync

    method = registry.method("dapo(max_rounds=4)")

    class Draws:
        states = None

        def collect(
            self, method: Any, prompts: Sequence[Prompt], counts: Sequence[int], *, seed: int, **_: Any
        ) -> list[Rollout]:
            return [
                # The groups of four of the prompts are flat.
                rollout.replace(reward=float(k == 0 and name.id in "abcd"), accuracy=0.0)
                for name, count in zip(prompts, counts, strict=True)
                for k, rollout in enumerate(group(name.id, 0, count))
            ]

        def take_tokens(self) -> int:
            return 7

    class Reader:
        asked = 0

        def scored(self, method: Any, rollouts: Sequence[Rollout]) -> Any:
            self.asked += 1
            return list(rollouts)

        def passing(self, method: Any, batch: Any, rollouts: Sequence[Rollout]) -> list[Rollout]:
            wanted = {r.prompt.id for r in batch if r.reward}
            return [r for r in rollouts if r.prompt.id in wanted]

    reader: Any = Reader()
    source = Sync(method, Draws(), list(PROMPTS.values()), reader, prompts_per_step=4, group_size=2)
    drawn = source.next(StepInfo(step=0, seed=3), method.init(size=len(PROMPTS)))
    assert reader.asked > 1
    assert len(drawn.rollouts) > len(drawn.chosen)
    assert {r.prompt.id for r in drawn.chosen} <= set("abcd")
    assert drawn.tokens == 7
    assert drawn.scored_batch is None


def test_a_budget_hands_out_rounds_and_notes_reach_the_requests(micro_root: Path) -> None:
    def noted(*, count: int, rng: torch.Generator, state: dict[str, Any]) -> Any:
        return torch.tensor([3, 1, 3]), state, [{"pick": n} for n in ("third", "first", "again")]

    asked: list[list[int]] = []

    def until_twelve(rows: torch.Tensor, *, drawn: Sequence[Sequence[Rollout]], given: torch.Tensor, total: int) -> Any:
        asked.append([len(each) for each in drawn])
        assert asked[-1] == given.tolist()
        assert all(r.scored for each in drawn for r in each)
        counts = torch.full_like(rows, 2 if int(given.sum()) < total else 0)
        return counts, [{"round": len(asked)}] * len(drawn)

    method = Method(curriculum=use(hooks(init=lambda *, size: {})(noted)), budget=use(until_twelve))
    with micro.ready(micro_root, "grpo", prompts_per_step=3, group_size=4) as (setup, _, _):
        setup.method = method
        rollouts, _, _ = sample(run_of(setup))
    assert asked == [[0, 0], [2, 2], [4, 4], [6, 6]]
    assert len({r.id for r in rollouts}) == 12
    by_prompt = {group.prompt.id: [r.request.meta for r in group.rollouts] for group in grouped(rollouts)}
    first, third = (by_prompt[setup.prompts[row].id] for row in (1, 3))
    assert first == [{"pick": "first", "round": n} for n in (1, 1, 2, 2, 3, 3)]
    # The prompt that was picked twice is one larger group.
    assert third == [{"pick": n, "round": k} for k in (1, 2, 3) for n in ("third", "again")]


def test_a_step_that_is_undone_leaves_the_buffer_as_it_was() -> None:
    source = Mixed([replaying(), InTurn()])
    steps(source, 2)  # type: ignore[arg-type]
    held = snapshot(source)
    before = source.state_dict()
    steps(source, 2, start=2)  # type: ignore[arg-type]
    assert str(source.state_dict()) != str(before)
    restore(source, held)
    assert str(source.state_dict()) == str(before)


def test_replayed_rollouts_stay_known_among_those_of_other_sources() -> None:
    source = Mixed([replaying(), InTurn()])
    steps(source, 1)  # type: ignore[arg-type]
    drawn = source.next(StepInfo(step=1, seed=5), {})
    assert {version for r in drawn.rollouts for version in r.versions} == {1}
    assert {version for r in drawn.replayed for version in r.versions} == {0}
    assert len(drawn.chosen) == len(drawn.rollouts) + len(drawn.replayed)
