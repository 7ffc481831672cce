"""Rollouts of other runs beside a run's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rollouts import sharing
from cohort.rollouts.exchange import Exchange, SharedGroup, packed, unpacked
from cohort.rollouts.sharing import Sharing, best, complete, plan, varied
from cohort.rollouts.sources import Drawn, RolloutSource, Stateless, restore, snapshot
from cohort.types import Context, Prompt, Request, Rollout, Segment, StepInfo
from tests.helpers import prompt_of, tiny_policy

POLICY = tiny_policy()
PROMPTS = [prompt_of(POLICY, f"{a}+1=", prompt=f"{a}+1=", answer=str(a + 1)) for a in range(4)]
POOLS = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=4), max_size=8)
ME, PEER = "0" * 12, "a" * 12


class Fixed(Stateless):
    """Two rollouts of each of the first two prompts, right and wrong."""

    def next(self, info: StepInfo, states: Any) -> Drawn:
        out = []
        for prompt in PROMPTS[:2]:
            for k, text in enumerate((str(prompt.row["answer"]), "no")):
                tokens = POLICY.renderer.encode_completion(prompt, text, end=True)
                request = Request(prompt, Context(prompt.tokens), k, 8)
                out.append(Rollout(request, (Segment(tokens, logp=(-1.0,) * len(tokens)),), text=text, reward=1.0 - k))
        return Drawn(out, out, states)


def graded(rollouts: Sequence[Rollout]) -> list[Rollout]:
    return [rollout.replace(reward=float(rollout.text == rollout.prompt.row.get("answer"))) for rollout in rollouts]


def shared(place: Path, node: str = ME, grade: Callable[..., Any] = graded, **changes: Any) -> Sharing:
    how = {"external": 3, "size": 2, "max_new_tokens": 8, "node": node, **changes}
    source: RolloutSource = Fixed()
    return Sharing(source, Exchange(str(place)), POLICY.renderer, grade, PROMPTS, **how)


def offer(place: Path, *groups: SharedGroup, node: str = PEER, step: int = 0) -> None:
    Exchange(str(place)).write(node, step, packed(groups))


def answers(prompt: Prompt | str, *texts: str, **columns: Any) -> SharedGroup:
    question = prompt if isinstance(prompt, str) else prompt.source
    return SharedGroup(question, texts, (True,) * len(texts), columns)


def step(source: Sharing, number: int = 0) -> Drawn:
    return source.next(StepInfo(step=number, version=7), {})


def foreign(drawn: Drawn) -> list[Rollout]:
    assert drawn.chosen[len(drawn.chosen) - len(drawn.replayed) :] == drawn.replayed
    return drawn.replayed


# which groups ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(POOLS, st.integers(0, 6))
def test_rules(pool: list[list[float]], count: int) -> None:
    assert all(len(set(pool[i])) > 1 for i in varied(pool))
    assert len(varied(pool)) == sum(len(set(group)) > 1 for group in pool)
    taken = best(pool, count)
    assert len(taken) == min(count, sum(sum(group) > 0 for group in pool))
    left = [sum(group) for i, group in enumerate(pool) if i not in taken]
    assert all(sum(pool[i]) >= max([other for other in left if count], default=0.0) for i in taken)
    assert all(len(pool[i]) == 2 for i in complete([len(group) for group in pool], 2))
    assert plan(3, count, 2, len(pool)) == (2, min(count, len(pool)))


# what is taken --------------------------------------------------------------------------------------------------------


def test_two_runs_train_on_each_others_rollouts(tmp_path: Path) -> None:
    mine, theirs = shared(tmp_path), shared(tmp_path, PEER)
    assert foreign(step(mine)) == []
    drawn = step(theirs)
    assert drawn.metrics == {"shared/groups": 2.0, "shared/offered": 2.0}
    assert len(drawn.chosen) == 8
    for rollout in foreign(drawn):
        assert rollout.reward == float(rollout.text != "no")
        assert POLICY.renderer.decode(rollout.tokens) == rollout.text
        assert rollout.tokens[-1] in POLICY.renderer.stop_ids
        assert torch.tensor(rollout.sampler_logp).isnan().all()
        assert set(rollout.versions) == {7}
        assert rollout.request.context.tokens == rollout.prompt.tokens
        assert any(rollout.prompt is prompt for prompt in PROMPTS)
    # Each file is read once.
    assert foreign(step(theirs, 1)) == []
    step(mine, 1)
    assert len(foreign(step(theirs, 2))) == 4


def test_without_others_or_room_for_them_it_is_the_runs_own(tmp_path: Path) -> None:
    offer(tmp_path, answers(PROMPTS[2], "3", "4"))
    alone = step(shared(tmp_path, external=0))
    assert alone.chosen == alone.rollouts
    assert len(alone.chosen) == 4


def test_groups_of_equal_rewards_and_other_sizes_are_left_by_the_rules(tmp_path: Path) -> None:
    groups = [answers(PROMPTS[2], "3", "3"), answers(PROMPTS[3], "4", "no", "no"), answers(PROMPTS[0], "1", "no")]
    for rule, asked in (("varied", {2, 1, 0}), ("best", {0, 1, 2}), ("complete", {0, 2})):
        place = tmp_path / rule
        offer(place, *groups)
        found = {rollout.prompt.id for rollout in foreign(step(shared(place, rule=rule)))}
        if rule == "varied":
            asked = {1, 2}
        assert found == {(PROMPTS[2], PROMPTS[3], PROMPTS[0])[i].id for i in asked}


def test_some_of_its_own_groups_can_make_room(tmp_path: Path) -> None:
    drawn = step(shared(tmp_path, local=1))
    assert len({rollout.prompt.id for rollout in drawn.chosen}) == 1
    assert len(drawn.rollouts) == 4


# what is refused --------------------------------------------------------------------------------------------------------


def test_hostile_answers_are_refused_and_the_rest_is_taken(tmp_path: Path) -> None:
    special = POLICY.renderer.whole([next(iter(POLICY.renderer.stop_ids))])
    for k, group in enumerate(
        [
            answers("who are you?", "3", "4", answer="3"),
            answers(PROMPTS[2], "3", "x" * 300),
            answers(PROMPTS[3], "4", f"a{special}b"),
            answers(PROMPTS[1], "", "no"),
        ]
    ):
        offer(tmp_path, group, node=f"{k}" * 12)
    (tmp_path / f"{'f' * 12}.000001.{'0' * 16}.json").write_text("{")
    offer(tmp_path, answers(PROMPTS[0], "1", "no"), node="e" * 12)
    drawn = step(shared(tmp_path, node="b" * 12))
    taken = {rollout.prompt.id for rollout in foreign(drawn)}
    assert PROMPTS[0].id in taken
    assert taken <= {PROMPTS[0].id, PROMPTS[1].id}
    assert any("checksum" in note for note in drawn.notes)
    assert any("3 groups" in note for note in drawn.notes)


def test_a_run_on_whose_answers_a_reward_fails_is_not_read_any_more(tmp_path: Path) -> None:
    def grade(rollouts: Sequence[Rollout]) -> list[Rollout]:
        if any("boom" in rollout.text for rollout in rollouts):
            raise RuntimeError("reward function failed")
        return graded(rollouts)

    mine = shared(tmp_path, grade=grade)
    offer(tmp_path, answers(PROMPTS[2], "boom", "3"), answers(PROMPTS[3], "boom", "3"))
    drawn = step(mine)
    assert foreign(drawn) == []
    assert len(drawn.chosen) == 4
    assert [note for note in drawn.notes if "not read any more" in note and "reward function failed" in note]
    offer(tmp_path, answers(PROMPTS[2], "3", "4"), step=1)
    assert foreign(step(mine, 1)) == []
    again = shared(tmp_path)
    again.load_state_dict(mine.state_dict())
    assert (again.node, again.refused, again.seen) == (mine.node, mine.refused, mine.seen)


def test_no_more_than_so_many_are_scored(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sharing, "SCORED", 2)
    calls = []

    def grade(rollouts: Sequence[Rollout]) -> list[Rollout]:
        calls.append(len(rollouts))
        return graded(rollouts)

    for k, prompt in enumerate(PROMPTS):
        offer(tmp_path, answers(prompt, "no", str(prompt.row["answer"])), node=f"{k}" * 12)
    step(shared(tmp_path, node="b" * 12, grade=grade))
    assert calls == [2, 2]


def test_unknown_questions_are_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    offer(tmp_path, answers("9+1=", "10", "11", answer="10"), answers("x" * 500, "1", "2", answer="1"))
    (right, wrong) = foreign(step(shared(tmp_path, unknown=True)))
    assert (right.reward, wrong.reward) == (1.0, 0.0)
    assert right.prompt.source == "9+1="
    assert POLICY.renderer.whole(right.request.context) == "<|user|>9+1=<|assistant|>"


def test_a_folder_that_is_gone_costs_what_is_shared_alone(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    drawn = step(shared(blocked / "folder"))
    assert len(drawn.chosen) == 4
    assert any("could not be shared" in note for note in drawn.notes)


def test_an_undone_step_reads_again_what_it_read(tmp_path: Path) -> None:
    mine = shared(tmp_path)
    offer(tmp_path, answers(PROMPTS[2], "3", "4"))
    held = snapshot(mine)
    first = step(mine)
    restore(mine, held)
    second = step(mine)
    assert [r.tokens for r in foreign(first)] == [r.tokens for r in foreign(second)]
    assert foreign(first)
    mine.release([])


def test_what_goes_on_in_a_later_step_is_not_shared_yet(tmp_path: Path) -> None:
    class Waiting(Fixed):
        def next(self, info: StepInfo, states: Any) -> Drawn:
            drawn = super().next(info, states)
            first, *others = drawn.rollouts
            return Drawn([first.replace(waits=True, reward=0.0), *others], others, states)

    mine = shared(tmp_path)
    mine.source = Waiting()
    step(mine)
    (name,) = Exchange(str(tmp_path)).newest(PEER).values()
    groups = unpacked(Exchange(str(tmp_path)).read(name), longest=64)
    assert [len(group.answers) for group in groups] == [1, 2]
