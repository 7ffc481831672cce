"""Rollouts that go on from step to step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import Method, use
from cohort.rollouts.batching import make_batch
from cohort.rollouts.sources import restore, snapshot
from cohort.training.loop import one_step
from cohort.types import Rollout, StepInfo, Turn
from tests import micro
from tests.rollouts.rolling import Known, rolling
from tests.stepping import run_of

INFO = StepInfo(max_new_tokens=10)


def test_a_rollout_goes_on_where_it_stood_with_what_drew_each_part(tmp_path: Path) -> None:
    method, source = rolling([9, 3], window=4, slots=2, max_length=10)
    states = method.init(size=2)
    first = source.next(INFO, states)
    long, short = first.rollouts
    assert (long.waits, short.waits) == (True, False)
    assert (long.reward, short.reward) == (0.0, 1.0)
    assert math.isnan(long.accuracy)
    assert first.chosen == first.rollouts
    source.release(first.chosen)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    _, again = rolling([9, 3], window=4, slots=2, max_length=10)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    # As text: what is not known yet is NaN, which equals nothing.
    assert str(again.waiting) == str(source.waiting)
    for each in (source, again):
        (second,) = each.next(StepInfo(step=1, version=1, max_new_tokens=10), first.states).rollouts
        assert second.parent == long.id
        assert second.request.seed != long.request.seed
        assert second.segments[0] == long.segments[0]
        assert second.versions == [0] * 4 + [1] * 4
        assert second.fields == {"finished": 0.0, "window_start": 4.0}
        assert second.request.max_new_tokens == 4


def test_a_step_that_is_undone_leaves_what_waited() -> None:
    method, source = rolling([9, 9, 9], window=4, slots=2, max_length=10)
    drawn = source.next(INFO, method.init(size=3))
    source.release(drawn.chosen)
    held, before = snapshot(source), list(source.waiting)
    source.release(source.next(INFO, drawn.states).chosen)
    assert source.waiting != before
    restore(source, held)
    assert source.waiting == before


def test_prompts_that_left_the_data_are_not_gone_on_with() -> None:
    method, source = rolling([9, 9], window=4, slots=2, max_length=10)
    source.release(source.next(INFO, method.init(size=2)).chosen)
    _, fewer = rolling([9], window=4, slots=2, max_length=10)
    fewer.load_state_dict(source.state_dict())
    assert [rollout.prompt.row["number"] for rollout in fewer.waiting] == [0]


def test_what_is_not_over_counts_in_no_reward_and_in_no_state(micro_root: Path) -> None:
    changes: dict[str, Any] = {"thought": True, "prompts_per_step": 4, "group_size": 4}
    with micro.ready(micro_root, "t-ppo(window=3)", **changes) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        results = [one_step(run) for _ in range(3)]
    for result in results:
        over = [rollout for rollout in result.rollouts if not rollout.waits]
        waiting = len(result.rollouts) - len(over)
        assert result.metrics.get("rollouts/waiting", 0.0) == waiting
        assert result.metrics["reward/mean"] == pytest.approx(sum(r.reward for r in over) / len(over))
        assert result.metrics["accuracy"] == pytest.approx(sum(r.accuracy for r in over) / len(over))
        assert over
        truncated = sum(not rollout.finished for rollout in over) / len(result.rollouts)
        assert result.metrics["completion/truncated"] == pytest.approx(truncated)
        assert len(result.rollouts) <= 16
    assert any("rollouts/waiting" in result.metrics for result in results)


def test_states_are_told_of_what_is_over_alone() -> None:
    method = registry.method("t-ppo+vade")
    method_, source = rolling([9, 3], window=4, slots=2, max_length=10)
    rollouts = source.next(INFO, method_.init(size=2)).rollouts
    rows = {rollout.prompt.id: row for row, rollout in enumerate(rollouts)}
    states = method.bind(method.init(size=2)).on_rollouts(make_batch(rollouts, rows), rollouts)
    assert states["curriculum/most_informative"]["counts"].tolist() == [[0, 0], [1, 0]]


def test_guidance_sees_prompts_that_begin_and_nothing_that_goes_on() -> None:
    seen: list[list[int]] = []

    def watched(requests: Any, sampler: Any) -> list[Rollout]:
        seen.append([len(request.prefix) for request in requests])
        return sampler.draw(requests)

    method, source = rolling([9, 3, 3], window=4, slots=2, max_length=10)
    source.method = method | Method(guidance=use(watched))
    states: Any = method.init(size=3)
    for step in range(2):
        drawn = source.next(StepInfo(step=step, max_new_tokens=10), states)
        states = drawn.states
        source.release(drawn.chosen)
    assert seen == [[0, 0], [0]]
    assert [len(rollout.tokens) for rollout in drawn.rollouts] == [8, 3]


# The second one was answered where the window was full, and would have had another turn.
@pytest.mark.parametrize("turns", [(Turn(0, 1), Turn(1, 3)), (Turn(0, 3, reward=0.5),)])
def test_episodes_of_several_turns_are_refused(monkeypatch: pytest.MonkeyPatch, turns: tuple[Turn, ...]) -> None:
    method, source = rolling([3], window=4, slots=1, max_length=10)
    real = Known.generate

    def twice(self: Known, requests: Any, *, alone: bool = False) -> list[Rollout]:
        return [rollout.replace(turns=turns, status="truncated") for rollout in real(self, requests)]

    monkeypatch.setattr(Known, "generate", twice)
    with pytest.raises(UsageError, match="several turns"):
        source.next(INFO, method.init(size=1))
